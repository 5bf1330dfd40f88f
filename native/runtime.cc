/*
 * The little of the C++ library that the addon needs, for the binaries in the package: they are linked without libstdc++, so that one of
 * them serves every Linux of its libc. Nothing here is compiled where node-gyp builds on the user's own machine.
 *
 * Without exceptions there is nothing to throw: a lack of memory ends the process, as it does in Node itself.
 */

#include <sched.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>

extern "C" {
// Of glibc 2.32. Atomic operations are right in every process.
char __libc_single_threaded = 0;
void __cxa_pure_virtual() { std::abort(); }

// A static variable of a function: the first byte says that it is made, the second that a thread makes it.
int __cxa_guard_acquire(char* guard) {
  for (;;) {
    if (__atomic_load_n(guard, __ATOMIC_ACQUIRE) != 0) return 0;
    if (__atomic_exchange_n(guard + 1, 1, __ATOMIC_ACQ_REL) == 0) return 1;
    sched_yield();
  }
}
void __cxa_guard_release(char* guard) { __atomic_store_n(guard, 1, __ATOMIC_RELEASE); }
}

void* operator new(std::size_t size) {
  void* memory = std::malloc(size > 0 ? size : 1);
  if (memory == nullptr) std::abort();
  return memory;
}
void* operator new[](std::size_t size) { return operator new(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size > 0 ? size : 1); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size > 0 ? size : 1); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace std {

void __throw_bad_alloc() { abort(); }
void __throw_bad_array_new_length() { abort(); }
void __throw_bad_function_call() { abort(); }
void __throw_length_error(const char*) { abort(); }
void __throw_logic_error(const char*) { abort(); }
void __throw_out_of_range(const char*) { abort(); }
void __throw_out_of_range_fmt(const char*, ...) { abort(); }
void __throw_system_error(int) { abort(); }

template class basic_string<char>;

// Of std::hash: FNV-1a.
size_t _Hash_bytes(const void* bytes, size_t length, size_t seed) {
  uint64_t hash = 14695981039346656037u ^ seed;
  for (size_t at = 0; at < length; at++) hash = (hash ^ static_cast<const unsigned char*>(bytes)[at]) * 1099511628211u;
  return hash;
}

// Of <unordered_map>: an odd number of buckets, which doubles.
size_t __detail::_Prime_rehash_policy::_M_next_bkt(size_t least) const {
  size_t buckets = least | 1;
  _M_next_resize = static_cast<size_t>(static_cast<double>(buckets) * _M_max_load_factor);
  return buckets;
}
pair<bool, size_t> __detail::_Prime_rehash_policy::_M_need_rehash(size_t buckets, size_t elements, size_t more) const {
  if (elements + more <= _M_next_resize) return {false, 0};
  size_t least = static_cast<size_t>(static_cast<double>(elements + more) / _M_max_load_factor) + 1;
  return {true, _M_next_bkt(least > buckets * 2 ? least : buckets * 2)};
}

// Of <memory>, where there is no RTTI.
bool _Sp_make_shared_tag::_S_eq(const type_info&) noexcept { return false; }

}  // namespace std
