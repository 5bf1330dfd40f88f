/*
 * Included before every source of the binaries in the package that are for glibc: functions that glibc 2.34 gave a new version when it moved
 * them into libc.so are asked for by the old one, so that glibc 2.28 has them.
 */

#if defined(__x86_64__)
#define HANDOVER_GLIBC(name) __asm__(".symver " #name "," #name "@GLIBC_2.2.5");
#else
#define HANDOVER_GLIBC(name) __asm__(".symver " #name "," #name "@GLIBC_2.17");
#endif

HANDOVER_GLIBC(dlopen)
HANDOVER_GLIBC(dlsym)
HANDOVER_GLIBC(dlclose)
HANDOVER_GLIBC(dlerror)
HANDOVER_GLIBC(pthread_once)
HANDOVER_GLIBC(pthread_sigmask)
