/*
 * Watches the TLS connections that this process serves, so that one can go on in another process: how many records were protected with the
 * present keys of each direction, how many bytes all records had, and the secrets. Only public functions of OpenSSL.
 *
 * OpenSSL tells each new SSL_CTX to whoever has registered an index of extra data (CRYPTO_get_ex_new_index(3)): it gets a message callback
 * (SSL_CTX_set_msg_callback(3)) and a keylog callback. The message callback sees the header of each record and each handshake message. What
 * is known of a connection hangs on its SSL as extra data, and is wiped when OpenSSL frees it.
 * A connection is found by the Finished message that it sent (`tlsSocket.getFinished()`): it is a MAC over its handshake.
 * Nothing here decides whether a connection moves.
 */

#include "tls.h"

#include <errno.h>

#include <cstring>
#include <mutex>
#include <string>
#include <unordered_map>

namespace {

using namespace openssl;

struct Direction {
  double records = 0;  // since the keys of this direction were last changed: the next sequence number
  double bytes = 0;    // of all records since the beginning, with their headers
  bool finished = false;
  Bytes secret[kMostHash] = {};
};

struct Connection {
  SSL* ssl = nullptr;
  Direction read, write;
  Bytes exporter[kMostHash] = {};
  size_t secretLength = 0, exporterLength = 0;
  bool half = false;   // a record with a part of a handshake message was read
  bool again = false;  // a second Finished: renegotiated, or authenticated after the handshake
  std::string name;    // the beginning of the Finished message
};

constexpr size_t kName = 12;  // the whole Finished of TLS 1.2; longer ones of TLS 1.3 are cut to it

int contextIndex = -1, sslIndex = -1;

// Never destroyed: at the end of the process, OpenSSL may free connections later than our static objects would be.
std::mutex& lock = *new std::mutex;
auto& connections = *new std::unordered_map<std::string, Connection*>;

void FreeConnection(void*, void* value, CRYPTO_EX_DATA*, int, long, void*) {
  auto* connection = static_cast<Connection*>(value);
  if (connection == nullptr) return;
  {
    std::lock_guard<std::mutex> guard(lock);
    auto listed = connections.find(connection->name);
    if (listed != connections.end() && listed->second == connection) connections.erase(listed);
  }
  Call().OPENSSL_cleanse(&connection->read, sizeof connection->read);
  Call().OPENSSL_cleanse(&connection->write, sizeof connection->write);
  Call().OPENSSL_cleanse(connection->exporter, sizeof connection->exporter);
  delete connection;
}

/** A copy of an SSL or SSL_CTX begins without ours: two would free it. */
int CopyNothing(CRYPTO_EX_DATA*, const CRYPTO_EX_DATA*, void** value, int, long, void*) {
  *value = nullptr;
  return 1;
}

/** What is known of a connection that this process serves; nullptr for one that it opened. */
Connection* Of(const SSL* ssl) {
  auto& call = Call();
  auto* found = static_cast<Connection*>(call.SSL_get_ex_data(ssl, sslIndex));
  if (found != nullptr || call.SSL_is_server(ssl) == 0) return found;
  auto* connection = new Connection;
  connection->ssl = const_cast<SSL*>(ssl);
  if (call.SSL_set_ex_data(connection->ssl, sslIndex, connection) == 1) return connection;
  delete connection;
  return nullptr;
}

size_t FromHex(const char* text, Bytes* result, size_t most) {
  auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  size_t length = 0;
  for (; length < most && digit(text[0]) >= 0 && digit(text[1]) >= 0; text += 2) {
    result[length++] = static_cast<Bytes>(digit(text[0]) << 4 | digit(text[1]));
  }
  return length;
}

/** A line of the key log: a label, the client random, the secret. */
void OnKeylogLine(const SSL* ssl, const char* line) {
  const char* last = strrchr(line, ' ');
  Connection* connection = last == nullptr ? nullptr : Of(ssl);
  if (connection != nullptr) {
    auto is = [line](const char* label) { return strncmp(line, label, strlen(label)) == 0; };
    if (is("CLIENT_TRAFFIC_SECRET_0 ")) connection->secretLength = FromHex(last + 1, connection->read.secret, kMostHash);
    if (is("SERVER_TRAFFIC_SECRET_0 ")) connection->secretLength = FromHex(last + 1, connection->write.secret, kMostHash);
    if (is("EXPORTER_SECRET ")) connection->exporterLength = FromHex(last + 1, connection->exporter, kMostHash);
  }
  auto next = reinterpret_cast<OnKeylog>(Call().SSL_CTX_get_ex_data(Call().SSL_get_SSL_CTX(ssl), contextIndex));
  if (next != nullptr) next(ssl, line);
}

/** Node puts its own callback here when somebody listens to `keylog`. It is called from ours then. */
void KeepKeylog(SSL_CTX* context) {
  OnKeylog present = Call().SSL_CTX_get_keylog_callback(context);
  if (present == OnKeylogLine) return;
  Call().SSL_CTX_set_ex_data(context, contextIndex, reinterpret_cast<void*>(present));
  Call().SSL_CTX_set_keylog_callback(context, OnKeylogLine);
}

void OnFinished(Connection* connection, Direction* direction, const Bytes* verify, size_t length) {
  if (direction->finished) connection->again = true;
  direction->finished = true;
  // TLS 1.3 has new keys behind it; in TLS 1.2 it is the first record with the keys.
  direction->records = Call().SSL_version(connection->ssl) == kTls13 ? 0 : 1;
  if (direction != &connection->write || length < kName) return;
  std::lock_guard<std::mutex> guard(lock);
  connections.erase(connection->name);
  connection->name.assign(reinterpret_cast<const char*>(verify), kName);
  connections[connection->name] = connection;
}

/** "traffic upd" of RFC 8446, 7.2. The old secret is overwritten. */
void OnKeyUpdate(Connection* connection, Direction* direction) {
  Suite suite;
  suite.hashLength = connection->secretLength;
  suite.hash = suite.hashLength == kMostHash ? Call().EVP_sha384() : Call().EVP_sha256();
  ExpandLabel(suite, direction->secret, "traffic upd", direction->secret, suite.hashLength);
  direction->records = 0;
}

void OnEach(int write, int, int type, const void* data, size_t length, SSL* ssl, void*) {
  Connection* connection = Of(ssl);
  if (connection == nullptr) return;
  Direction* direction = write != 0 ? &connection->write : &connection->read;
  auto* bytes = static_cast<const Bytes*>(data);
  if (type == kHeader && length >= 5) {
    direction->records += 1;
    direction->bytes += 5 + (bytes[3] << 8 | bytes[4]);
  } else if (type == kInnerType && length == 1 && write == 0) {
    if (bytes[0] == kHandshake) connection->half = true;
  } else if (type == kHandshake && length >= 4) {
    if (write == 0) connection->half = false;
    KeepKeylog(Call().SSL_get_SSL_CTX(ssl));  // here, because it must stand before the next secret
    if (bytes[0] == kFinished) OnFinished(connection, direction, bytes + 4, length - 4);
    if (bytes[0] == kKeyUpdate) OnKeyUpdate(connection, direction);
  }
}

void OnContext(void* parent, void*, CRYPTO_EX_DATA*, int, long, void*) {
  auto* context = static_cast<SSL_CTX*>(parent);
  Call().SSL_CTX_set_msg_callback(context, OnEach);
  Call().SSL_CTX_set_keylog_callback(context, OnKeylogLine);
}

/** For every context that is made from now on, in all threads. What is missing, or ''. */
Napi::Value WatchTls(const Napi::CallbackInfo& info) {
  static const char* missing = [] {
    auto& call = Call();
    if (call.missing != nullptr) return call.missing;
    sslIndex = call.CRYPTO_get_ex_new_index(kIndexOfSsl, 0, nullptr, nullptr, CopyNothing, FreeConnection);
    if (sslIndex >= 0) contextIndex = call.CRYPTO_get_ex_new_index(kIndexOfContext, 0, nullptr, OnContext, CopyNothing, nullptr);
    return contextIndex < 0 ? "CRYPTO_get_ex_new_index" : "";
  }();
  return Napi::String::New(info.Env(), missing);
}

struct Secrets {
  Bytes read[kMostHash], write[kMostHash], exporter[kMostHash + 64];
  size_t length = 0, exporterLength = 0;
  ~Secrets() { Call().OPENSSL_cleanse(this, sizeof *this); }
};

/** The key block of RFC 5246, 6.3, of a server: keys, then implicit nonces. */
void FromMaster(const Connection& connection, const Suite& suite, Secrets* result) {
  auto& call = Call();
  Bytes master[kMostHash], seed[13 + 64], block[2 * (kMostKey + kNonce)];
  size_t length = call.SSL_SESSION_get_master_key(call.SSL_get_session(connection.ssl), master, sizeof master);
  Bytes* randoms = seed + 13;
  call.SSL_get_client_random(connection.ssl, randoms, 32);
  call.SSL_get_server_random(connection.ssl, randoms + 32, 32);
  memcpy(result->exporter, master, length);
  memcpy(result->exporter + length, randoms, 64);
  result->exporterLength = length + 64;

  memcpy(seed, "key expansion", 13);
  call.SSL_get_server_random(connection.ssl, randoms, 32);
  call.SSL_get_client_random(connection.ssl, randoms + 32, 32);
  size_t key = suite.keyLength, iv = suite.ivLength;
  Prf(suite, master, length, seed, sizeof seed, block, 2 * (key + iv));
  memcpy(result->read, block, key);
  memcpy(result->write, block + key, key);
  memcpy(result->read + key, block + 2 * key, iv);
  memcpy(result->write + key, block + 2 * key + iv, iv);
  result->length = key + iv;
  call.OPENSSL_cleanse(master, sizeof master);
  call.OPENSSL_cleanse(block, sizeof block);
}

/**
 * (finished) What is known of the connection that sent this Finished message; -ENOENT: nothing. The caller holds its socket, so that it
 * is not freed meanwhile. The types are in native.ts.
 */
Napi::Value DescribeTls(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  void* finished = nullptr;
  size_t length = 0;
  if (napi_get_buffer_info(env, info[0], &finished, &length) != napi_ok) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "argument 1 must be a Buffer");
    return {};
  }
  if (sslIndex < 0 || length < kName) return Napi::Number::New(env, -ENOENT);
  std::unique_lock<std::mutex> guard(lock);
  auto found = connections.find(std::string(static_cast<char*>(finished), kName));
  const Connection* listed = found == connections.end() ? nullptr : found->second;
  // Making a value may collect garbage, which may free another connection: FreeConnection takes the lock.
  guard.unlock();
  if (listed == nullptr) return Napi::Number::New(env, -ENOENT);

  auto& call = Call();
  const Connection& connection = *listed;
  const SSL_CIPHER* cipher = call.SSL_get_current_cipher(connection.ssl);
  const char* name = cipher == nullptr ? nullptr : call.SSL_CIPHER_standard_name(cipher);
  int version = call.SSL_version(connection.ssl);
  Suite suite = SuiteOf(name == nullptr ? "" : name, version);
  const SSL_SESSION* session = call.SSL_get_session(connection.ssl);
  Secrets secrets;
  if (version == kTls13 && connection.secretLength == suite.hashLength) {
    memcpy(secrets.read, connection.read.secret, secrets.length = connection.secretLength);
    memcpy(secrets.write, connection.write.secret, secrets.length);
    memcpy(secrets.exporter, connection.exporter, secrets.exporterLength = connection.exporterLength);
  } else if (version == kTls12 && suite.cipher != nullptr && session != nullptr) {
    FromMaster(connection, suite, &secrets);
  }

  auto set = [&](Napi::Object to, const char* key, Napi::Value value) { to.Set(key, value); };
  auto number = [env](double value) { return Napi::Number::New(env, value); };
  auto flag = [env](bool value) { return Napi::Boolean::New(env, value); };
  auto bytes = [env](const Bytes* from, size_t length) { return Napi::Buffer<Bytes>::Copy(env, from, length); };
  Napi::Object result = Napi::Object::New(env);
  set(result, "version", number(version));
  set(result, "cipher", Napi::String::New(env, name == nullptr ? "" : name));
  set(result, "known", flag(suite.cipher != nullptr && secrets.length > 0 && call.SSL_get_current_compression(connection.ssl) == nullptr));
  set(result, "read", bytes(secrets.read, secrets.length));
  set(result, "write", bytes(secrets.write, secrets.length));
  set(result, "exporter", bytes(secrets.exporter, secrets.exporterLength));
  set(result, "readSequence", number(connection.read.records));
  set(result, "writeSequence", number(connection.write.records));
  set(result, "readBytes", number(connection.read.bytes));
  set(result, "writeBytes", number(connection.write.bytes));
  set(result, "open", flag(connection.read.finished && connection.write.finished && call.SSL_is_init_finished(connection.ssl) != 0));
  set(result, "renegotiated", flag(connection.again));
  set(result, "half", flag(connection.half || call.SSL_has_pending(connection.ssl) != 0));
  set(result, "closing", flag(call.SSL_get_shutdown(connection.ssl) != 0));
  set(result, "fragment", number(session == nullptr ? 0 : call.SSL_SESSION_get_max_fragment_length(session)));
  return result;
}

}  // namespace

void InitTls(Napi::Env env, Napi::Object exports) {
  exports.Set("watchTls", Napi::Function::New(env, WatchTls));
  exports.Set("describeTls", Napi::Function::New(env, DescribeTls));
  InitTlsRecords(env, exports);
}
