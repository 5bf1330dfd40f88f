/*
 * The functions of OpenSSL 3 that the addon calls, as its public headers declare them.
 *
 * They are looked up in the running program (dlsym), never linked: the addon loads where they are missing (Bun, Electron with BoringSSL, an
 * OpenSSL that hides them), and says which one it misses. The binaries of Node export all of them.
 */

#pragma once

#include <dlfcn.h>

#include <cstddef>

namespace openssl {

struct SSL;
struct SSL_CTX;
struct SSL_CIPHER;
struct SSL_SESSION;
struct EVP_CIPHER;
struct EVP_CIPHER_CTX;
struct EVP_MD;
struct ENGINE;
struct CRYPTO_EX_DATA;

using Bytes = unsigned char;
using ExNew = void (*)(void* parent, void* value, CRYPTO_EX_DATA*, int index, long, void*);
using ExFree = ExNew;
using ExDup = int (*)(CRYPTO_EX_DATA* to, const CRYPTO_EX_DATA* from, void** value, int index, long, void*);
using OnMessage = void (*)(int write, int version, int type, const void* data, size_t length, SSL*, void*);
using OnKeylog = void (*)(const SSL*, const char* line);

constexpr int kIndexOfSsl = 0, kIndexOfContext = 1;                   // CRYPTO_EX_INDEX_*
constexpr int kHeader = 0x100, kInnerType = 0x101, kHandshake = 22;   // SSL3_RT_*, content types of the message callback
constexpr int kFinished = 20, kKeyUpdate = 24;                        // SSL3_MT_*
constexpr int kTls12 = 0x303, kTls13 = 0x304;
constexpr int kGetTag = 0x10, kSetTag = 0x11;                         // EVP_CTRL_AEAD_*

#define HANDOVER_OPENSSL(F)                                                                             \
  F(unsigned, OPENSSL_version_major, ())                                                                \
  F(void, OPENSSL_cleanse, (void*, size_t))                                                             \
  F(int, CRYPTO_get_ex_new_index, (int, long, void*, ExNew, ExDup, ExFree))                             \
  F(void, SSL_CTX_set_msg_callback, (SSL_CTX*, OnMessage))                                              \
  F(void, SSL_CTX_set_keylog_callback, (SSL_CTX*, OnKeylog))                                            \
  F(OnKeylog, SSL_CTX_get_keylog_callback, (const SSL_CTX*))                                            \
  F(void*, SSL_CTX_get_ex_data, (const SSL_CTX*, int))                                                  \
  F(int, SSL_CTX_set_ex_data, (SSL_CTX*, int, void*))                                                   \
  F(void*, SSL_get_ex_data, (const SSL*, int))                                                          \
  F(int, SSL_set_ex_data, (SSL*, int, void*))                                                           \
  F(SSL_CTX*, SSL_get_SSL_CTX, (const SSL*))                                                            \
  F(int, SSL_is_server, (const SSL*))                                                                   \
  F(int, SSL_is_init_finished, (const SSL*))                                                            \
  F(int, SSL_version, (const SSL*))                                                                     \
  F(int, SSL_has_pending, (const SSL*))                                                                 \
  F(int, SSL_get_shutdown, (const SSL*))                                                                \
  F(const void*, SSL_get_current_compression, (const SSL*))                                             \
  F(const SSL_CIPHER*, SSL_get_current_cipher, (const SSL*))                                            \
  F(const char*, SSL_CIPHER_standard_name, (const SSL_CIPHER*))                                         \
  F(size_t, SSL_get_client_random, (const SSL*, Bytes*, size_t))                                        \
  F(size_t, SSL_get_server_random, (const SSL*, Bytes*, size_t))                                        \
  F(SSL_SESSION*, SSL_get_session, (const SSL*))                                                        \
  F(size_t, SSL_SESSION_get_master_key, (const SSL_SESSION*, Bytes*, size_t))                           \
  F(unsigned char, SSL_SESSION_get_max_fragment_length, (const SSL_SESSION*))                           \
  F(const EVP_MD*, EVP_sha256, ())                                                                      \
  F(const EVP_MD*, EVP_sha384, ())                                                                      \
  F(Bytes*, HMAC, (const EVP_MD*, const void*, int, const Bytes*, size_t, Bytes*, unsigned*))           \
  F(const EVP_CIPHER*, EVP_aes_128_gcm, ())                                                             \
  F(const EVP_CIPHER*, EVP_aes_256_gcm, ())                                                             \
  F(const EVP_CIPHER*, EVP_chacha20_poly1305, ())                                                       \
  F(EVP_CIPHER_CTX*, EVP_CIPHER_CTX_new, ())                                                            \
  F(void, EVP_CIPHER_CTX_free, (EVP_CIPHER_CTX*))                                                       \
  F(int, EVP_CIPHER_CTX_ctrl, (EVP_CIPHER_CTX*, int, int, void*))                                       \
  F(int, EVP_CipherInit_ex, (EVP_CIPHER_CTX*, const EVP_CIPHER*, ENGINE*, const Bytes*, const Bytes*, int)) \
  F(int, EVP_CipherUpdate, (EVP_CIPHER_CTX*, Bytes*, int*, const Bytes*, int))                          \
  F(int, EVP_CipherFinal_ex, (EVP_CIPHER_CTX*, Bytes*, int*))

struct Functions {
#define HANDOVER_DECLARE(result, name, arguments) result(*name) arguments = nullptr;
  HANDOVER_OPENSSL(HANDOVER_DECLARE)
#undef HANDOVER_DECLARE
  /** The first name that was not found, or nullptr. */
  const char* missing = nullptr;

  Functions() {
#define HANDOVER_FIND(result, name, arguments)                                           \
  name = reinterpret_cast<result(*) arguments>(dlsym(RTLD_DEFAULT, #name));              \
  if (name == nullptr && missing == nullptr) missing = #name;
    HANDOVER_OPENSSL(HANDOVER_FIND)
#undef HANDOVER_FIND
    // Prototypes and meaning are those of version 3; a next one may change them.
    if (missing == nullptr && OPENSSL_version_major() != 3) missing = "OpenSSL 3";
  }
};

/** Looked up once in a process, when TLS is first asked for. */
inline const Functions& Call() {
  static const Functions functions;
  return functions;
}

/** What a cipher suite means for a record. */
struct Suite {
  const EVP_CIPHER* cipher = nullptr;  // nullptr: no AEAD suite that a record layer here knows
  const EVP_MD* hash = nullptr;
  size_t keyLength = 0, hashLength = 0, ivLength = 12;
  bool explicitNonce = false;  // GCM of TLS 1.2: 8 bytes of the nonce are in the record
};

constexpr size_t kMostHash = 48, kMostKey = 32, kNonce = 12, kTag = 16;

/** By its name of the IANA registry, with the protocol's version. */
Suite SuiteOf(const char* name, int version);
/** HKDF-Expand-Label of RFC 8446, 7.1, with an empty context; at most one block of the hash. */
void ExpandLabel(const Suite& suite, const Bytes* secret, const char* label, Bytes* result, size_t length);
/** P_hash of RFC 5246, 5: `seed` has the label in front. */
void Prf(const Suite& suite, const Bytes* secret, size_t secretLength, const Bytes* seed, size_t seedLength, Bytes* result, size_t length);

}  // namespace openssl
