/*
 * The record layer of TLS 1.3 (RFC 8446, 5) and of TLS 1.2 with AEAD suites (RFC 5246, 5288, 7905), from the secrets and sequence numbers of
 * a connection whose handshake another process has made. It protects and opens records, many a call; what they mean is for its caller.
 * The ciphers are OpenSSL's (EVP). Keys are wiped by dispose, or when the object is collected.
 */

#include "tls.h"

#include <errno.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

namespace openssl {

Suite SuiteOf(const char* name, int version) {
  auto& call = Call();
  auto has = [name](const char* part) { return strstr(name, part) != nullptr; };
  Suite suite;
  if (version != kTls13 && version != kTls12) return suite;
  if (has("_AES_128_GCM_")) {
    suite.cipher = call.EVP_aes_128_gcm();
    suite.keyLength = 16;
  } else if (has("_AES_256_GCM_")) {
    suite.cipher = call.EVP_aes_256_gcm();
    suite.keyLength = 32;
  } else if (has("_CHACHA20_POLY1305_")) {
    suite.cipher = call.EVP_chacha20_poly1305();
    suite.keyLength = 32;
  }
  suite.hash = has("_SHA384") ? call.EVP_sha384() : call.EVP_sha256();
  suite.hashLength = has("_SHA384") ? 48 : 32;
  suite.explicitNonce = version == kTls12 && has("_GCM_");
  if (suite.explicitNonce) suite.ivLength = 4;
  return suite;
}

void ExpandLabel(const Suite& suite, const Bytes* secret, const char* label, Bytes* result, size_t length) {
  Bytes info[32], block[64];
  size_t name = strlen(label), at = 0;
  info[at++] = static_cast<Bytes>(length >> 8);
  info[at++] = static_cast<Bytes>(length);
  info[at++] = static_cast<Bytes>(6 + name);
  memcpy(info + at, "tls13 ", 6);
  memcpy(info + at + 6, label, name);
  at += 6 + name;
  info[at++] = 0;  // the context is empty
  info[at++] = 1;  // the first block of HKDF-Expand, and here the only one
  Call().HMAC(suite.hash, secret, static_cast<int>(suite.hashLength), info, at, block, nullptr);
  memcpy(result, block, length);
  Call().OPENSSL_cleanse(block, sizeof block);
}

void Prf(const Suite& suite, const Bytes* secret, size_t secretLength, const Bytes* seed, size_t seedLength, Bytes* result, size_t length) {
  Bytes text[kMostHash + 96], block[64], next[64];
  int keyed = static_cast<int>(secretLength);
  const Bytes* from = seed;
  size_t fromLength = seedLength;
  for (size_t done = 0; done < length; done += suite.hashLength) {
    Call().HMAC(suite.hash, secret, keyed, from, fromLength, next, nullptr);  // A(i)
    memcpy(text, next, suite.hashLength);
    memcpy(text + suite.hashLength, seed, seedLength);
    Call().HMAC(suite.hash, secret, keyed, text, suite.hashLength + seedLength, block, nullptr);
    memcpy(result + done, block, std::min(suite.hashLength, length - done));
    from = text;
    fromLength = suite.hashLength;
  }
  Call().OPENSSL_cleanse(block, sizeof block);
  Call().OPENSSL_cleanse(text, sizeof text);
}

}  // namespace openssl

namespace {

using namespace openssl;
using Napi::CallbackInfo;

constexpr size_t kHeaderLength = 5, kMostPlain = 16384, kMostCipher = kMostPlain + 256, kMostOverhead = 29;
constexpr Bytes kApplicationData = 23;

/** One direction: a key, and the number of the next record. */
struct Half {
  Suite suite;
  bool tls13 = true;
  EVP_CIPHER_CTX* cipher = nullptr;
  Bytes secret[kMostHash] = {};  // TLS 1.3: the traffic secret; TLS 1.2: key and implicit nonce
  Bytes iv[kNonce] = {};
  uint64_t sequence = 0;

  size_t SecretLength() const { return tls13 ? suite.hashLength : suite.keyLength + suite.ivLength; }

  bool Start(bool writes) {
    auto& call = Call();
    Bytes key[kMostKey];
    if (tls13) {
      ExpandLabel(suite, secret, "key", key, suite.keyLength);
      ExpandLabel(suite, secret, "iv", iv, kNonce);
    } else {
      memcpy(key, secret, suite.keyLength);
      memcpy(iv, secret + suite.keyLength, suite.ivLength);
    }
    if (cipher == nullptr) cipher = call.EVP_CIPHER_CTX_new();
    bool works = cipher != nullptr && call.EVP_CipherInit_ex(cipher, suite.cipher, nullptr, key, nullptr, writes ? 1 : 0) == 1;
    call.OPENSSL_cleanse(key, sizeof key);
    return works;
  }

  void Wipe() {
    if (cipher != nullptr) Call().EVP_CIPHER_CTX_free(cipher);
    cipher = nullptr;
    Call().OPENSSL_cleanse(secret, sizeof secret);
    Call().OPENSSL_cleanse(iv, sizeof iv);
  }

  static void Put(uint64_t number, Bytes* to) {
    for (int at = 0; at < 8; at++) to[at] = static_cast<Bytes>(number >> (56 - 8 * at));
  }

  /** Nonce and additional data of the next record. `header` is the record's; `explicitNonce` is what the record has of the nonce. */
  bool Begin(const Bytes* header, size_t plain, const Bytes* explicitNonce) {
    auto& call = Call();
    Bytes nonce[kNonce], about[13];
    memcpy(nonce, iv, kNonce);
    if (explicitNonce != nullptr) {
      memcpy(nonce + 4, explicitNonce, 8);
    } else {
      Bytes number[8];
      Put(sequence, number);
      for (int at = 0; at < 8; at++) nonce[4 + at] ^= number[at];
    }
    const Bytes* data = header;
    int length = kHeaderLength, ignored;
    if (!tls13) {
      Put(sequence, about);
      memcpy(about + 8, header, 3);
      about[11] = static_cast<Bytes>(plain >> 8);
      about[12] = static_cast<Bytes>(plain);
      data = about;
      length = sizeof about;
    }
    sequence++;
    return call.EVP_CipherInit_ex(cipher, nullptr, nullptr, nullptr, nonce, -1) == 1 && call.EVP_CipherUpdate(cipher, nullptr, &ignored, data, length) == 1;
  }

  /** Opens a whole record where it lies. Answers where its content is, or a negative errno. */
  int Open(Bytes* record, size_t length, Bytes* type, Bytes** content) {
    auto& call = Call();
    size_t before = suite.explicitNonce ? 8 : 0, least = before + kTag + (tls13 ? 1 : 0);
    if (length < least || (tls13 && record[0] != kApplicationData)) return -EPROTO;
    Bytes* data = record + kHeaderLength + before;
    int plain = static_cast<int>(length - before - kTag), done = 0, rest = 0;
    if (!Begin(record, static_cast<size_t>(plain), before > 0 ? record + kHeaderLength : nullptr) ||
        call.EVP_CIPHER_CTX_ctrl(cipher, kSetTag, kTag, data + plain) != 1 || call.EVP_CipherUpdate(cipher, data, &done, data, plain) != 1 ||
        call.EVP_CipherFinal_ex(cipher, data + done, &rest) != 1) {
      return -EILSEQ;
    }
    *type = record[0];
    *content = data;
    if (tls13) {
      while (plain > 0 && data[plain - 1] == 0) plain--;  // padding
      if (plain == 0) return -EPROTO;
      *type = data[--plain];
    }
    return plain > static_cast<int>(kMostPlain) ? -EPROTO : plain;
  }

  /** Writes a record. Answers its length, or a negative errno. */
  int Seal(Bytes type, const Bytes* data, size_t length, Bytes* record) {
    auto& call = Call();
    size_t before = suite.explicitNonce ? 8 : 0, plain = length + (tls13 ? 1 : 0), body = before + plain + kTag;
    record[0] = tls13 ? kApplicationData : type;
    record[1] = record[2] = 3;
    record[3] = static_cast<Bytes>(body >> 8);
    record[4] = static_cast<Bytes>(body);
    // OpenSSL counts from a random start, we from the sequence number: that both meet is as likely as guessing 64 bits.
    if (before > 0) Put(sequence, record + kHeaderLength);
    Bytes* to = record + kHeaderLength + before;
    int done = 0;
    if (!Begin(record, plain, before > 0 ? record + kHeaderLength : nullptr) ||
        (length > 0 && call.EVP_CipherUpdate(cipher, to, &done, data, static_cast<int>(length)) != 1) ||
        (tls13 && call.EVP_CipherUpdate(cipher, to + length, &done, &type, 1) != 1) || call.EVP_CipherFinal_ex(cipher, to + plain, &done) != 1 ||
        call.EVP_CIPHER_CTX_ctrl(cipher, kGetTag, kTag, to + plain) != 1) {
      return -EIO;
    }
    return static_cast<int>(kHeaderLength + body);
  }
};

struct Span {
  Bytes* data = nullptr;
  size_t length = 0;
};

bool Wrong(const CallbackInfo& info, const char* text) {
  napi_throw_type_error(info.Env(), "ERR_INVALID_ARG_TYPE", text);
  return false;
}

bool ReadSpan(const CallbackInfo& info, size_t index, Span* result) {
  if (!info[index].IsBuffer()) return Wrong(info, "a Buffer is expected");
  void* data = nullptr;
  napi_get_buffer_info(info.Env(), info[index], &data, &result->length);
  result->data = static_cast<Bytes*>(data);
  return true;
}

bool ReadNumber(const CallbackInfo& info, size_t index, double* result, double most) {
  return (napi_get_value_double(info.Env(), info[index], result) == napi_ok && *result >= 0 && *result <= most) || Wrong(info, "a number is expected");
}

class TlsRecords : public Napi::ObjectWrap<TlsRecords> {
 public:
  /** (version, cipher, read, write, readSequence, writeSequence) */
  explicit TlsRecords(const CallbackInfo& info) : Napi::ObjectWrap<TlsRecords>(info) {
    double version, readSequence, writeSequence;
    Span read, write;
    constexpr double kMost = 9007199254740991;
    if (Call().missing != nullptr || !info[1].IsString()) {
      Wrong(info, Call().missing != nullptr ? Call().missing : "a name of a cipher suite is expected");
      return;
    }
    if (!ReadNumber(info, 0, &version, 0xffff) || !ReadSpan(info, 2, &read) || !ReadSpan(info, 3, &write) ||
        !ReadNumber(info, 4, &readSequence, kMost) || !ReadNumber(info, 5, &writeSequence, kMost)) {
      return;
    }
    Suite suite = SuiteOf(info[1].As<Napi::String>().Utf8Value().c_str(), static_cast<int>(version));
    read_.suite = write_.suite = suite;
    read_.tls13 = write_.tls13 = version == kTls13;
    if (suite.cipher == nullptr || read.length != read_.SecretLength() || write.length != write_.SecretLength()) {
      Wrong(info, "an AEAD suite and secrets of its length are expected");
      return;
    }
    memcpy(read_.secret, read.data, read.length);
    memcpy(write_.secret, write.data, write.length);
    read_.sequence = static_cast<uint64_t>(readSequence);
    write_.sequence = static_cast<uint64_t>(writeSequence);
    if (!read_.Start(false) || !write_.Start(true)) Wrong(info, "OpenSSL refuses the cipher");
  }

  ~TlsRecords() override { Wipe(); }

  /**
   * (buffer, result) Opens whole records where they lie, and brings application data to the front of the buffer. Stops behind a record of
   * another type. The result gets: bytes of whole records, bytes of data, and the type, place and length of that other content.
   */
  Napi::Value Open(const CallbackInfo& info) {
    Span buffer;
    if (!ReadSpan(info, 0, &buffer)) return {};
    if (!info[1].IsTypedArray() || info[1].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array ||
        info[1].As<Napi::TypedArray>().ElementLength() < 5) {
      Wrong(info, "an Int32Array of 5 is expected");
      return {};
    }
    int32_t* result = info[1].As<Napi::Int32Array>().Data();
    size_t at = 0, out = 0;
    std::fill(result, result + 5, 0);
    if (read_.cipher == nullptr) return Answer(info, -EBADF);
    while (buffer.length - at >= kHeaderLength) {
      Bytes* record = buffer.data + at;
      size_t length = static_cast<size_t>(record[3] << 8 | record[4]);
      if (length > kMostCipher || record[1] != 3) return Answer(info, -EPROTO);
      if (buffer.length - at - kHeaderLength < length) break;
      Bytes type = 0;
      Bytes* content = nullptr;
      int plain = read_.Open(record, length, &type, &content);
      if (plain < 0) return Answer(info, plain);
      at += kHeaderLength + length;
      if (type != kApplicationData) {
        result[2] = type;
        result[3] = static_cast<int32_t>(content - buffer.data);
        result[4] = plain;
        break;
      }
      memmove(buffer.data + out, content, static_cast<size_t>(plain));
      out += static_cast<size_t>(plain);
    }
    result[0] = static_cast<int32_t>(at);
    result[1] = static_cast<int32_t>(out);
    return Answer(info, 0);
  }

  /** (type, data, into, most) Records of at most `most` bytes of content; nothing for no data. Bytes written. */
  Napi::Value Seal(const CallbackInfo& info) {
    double type, most;
    Span data, into;
    if (!ReadNumber(info, 0, &type, 255) || !ReadSpan(info, 1, &data) || !ReadSpan(info, 2, &into) || !ReadNumber(info, 3, &most, kMostPlain)) return {};
    size_t each = static_cast<size_t>(most), out = 0;
    if (write_.cipher == nullptr) return Answer(info, -EBADF);
    if (each == 0 || into.length < data.length + (data.length + each - 1) / each * kMostOverhead) return Answer(info, -EINVAL);
    for (size_t at = 0; at < data.length; at += each) {
      int length = write_.Seal(static_cast<Bytes>(type), data.data + at, std::min(each, data.length - at), into.data + out);
      if (length < 0) return Answer(info, length);
      out += static_cast<size_t>(length);
    }
    return Answer(info, static_cast<double>(out));
  }

  /** (writes) The next keys of a direction: KeyUpdate of TLS 1.3. */
  Napi::Value Update(const CallbackInfo& info) {
    bool writes = info[0].ToBoolean().UnwrapOr(Napi::Boolean::New(info.Env(), false));
    Half& half = writes ? write_ : read_;
    if (half.cipher == nullptr || !half.tls13) return Answer(info, -EBADF);
    ExpandLabel(half.suite, half.secret, "traffic upd", half.secret, half.suite.hashLength);
    half.sequence = 0;
    return Answer(info, half.Start(writes) ? 0 : -EIO);
  }

  Napi::Value State(const CallbackInfo& info) {
    Napi::Env env = info.Env();
    if (read_.cipher == nullptr) return Answer(info, -EBADF);
    Napi::Object result = Napi::Object::New(env);
    result.Set("read", Napi::Buffer<Bytes>::Copy(env, read_.secret, read_.SecretLength()));
    result.Set("write", Napi::Buffer<Bytes>::Copy(env, write_.secret, write_.SecretLength()));
    result.Set("readSequence", Napi::Number::New(env, static_cast<double>(read_.sequence)));
    result.Set("writeSequence", Napi::Number::New(env, static_cast<double>(write_.sequence)));
    return result;
  }

  Napi::Value Dispose(const CallbackInfo& info) {
    Wipe();
    return info.Env().Undefined();
  }

 private:
  static Napi::Value Answer(const CallbackInfo& info, double value) { return Napi::Number::New(info.Env(), value); }

  void Wipe() {
    if (Call().missing != nullptr) return;
    read_.Wipe();
    write_.Wipe();
  }

  Half read_, write_;
};

}  // namespace

void InitTlsRecords(Napi::Env env, Napi::Object exports) {
  exports.Set("TlsRecords", TlsRecords::DefineClass(env, "TlsRecords", {
    TlsRecords::InstanceMethod("open", &TlsRecords::Open),
    TlsRecords::InstanceMethod("seal", &TlsRecords::Seal),
    TlsRecords::InstanceMethod("update", &TlsRecords::Update),
    TlsRecords::InstanceMethod("state", &TlsRecords::State),
    TlsRecords::InstanceMethod("dispose", &TlsRecords::Dispose)
  }));
}
