/*
 * Included before every source of the binaries in the package that are for musl: the headers of GCC's C++ library were configured for glibc,
 * and here they are told what musl has not. Its compiled part is not used, see runtime.cc.
 */

#include <features.h>
#define __GLIBC_PREREQ(major, minor) 0
#define __locale_t locale_t

#include <cstddef>
#undef _GLIBCXX_USE_PTHREAD_COND_CLOCKWAIT
#undef _GLIBCXX_USE_PTHREAD_MUTEX_CLOCKLOCK
