/* What the files of TLS add to the addon. */

#pragma once

#include <napi.h>

#include "openssl.h"

void InitTls(Napi::Env env, Napi::Object exports);
void InitTlsRecords(Napi::Env env, Napi::Object exports);
