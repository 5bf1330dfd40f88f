/*
 * Stands for a Node with musl, which no package registry has: it loads the addon as dlopen(3) of musl does, with every name resolved at
 * once, lets it register its functions, and calls each without an argument. stubs.h, which the test writes, answers every other function of
 * Node-API and libuv with 0. It prints the names, and in the end how many exceptions were thrown.
 */

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

typedef void* (*callback)(void* env, void* info);
static struct { callback call; void* data; } functions[256];
static int count, current, thrown;

int napi_create_function(void* env, const char* name, size_t length, callback call, void* data, void** result) {
  if (name != NULL) puts(name);
  functions[count].call = call;
  functions[count].data = data;
  *result = &functions[count++];
  return 0;
}

int napi_get_cb_info(void* env, void* info, size_t* argc, void** argv, void** self, void** data) {
  if (argc != NULL) *argc = 0;
  if (self != NULL) *self = NULL;
  if (data != NULL) *data = functions[current].data;
  return 0;
}

int napi_get_undefined(void* env, void** result) {
  *result = NULL;
  return 0;
}

int napi_typeof(void* env, void* value, int* type) {
  *type = 0;
  return 0;
}

int napi_throw(void* env, void* error) {
  thrown++;
  return 0;
}

int napi_throw_type_error(void* env, const char* code, const char* message) {
  thrown++;
  return 0;
}

#include "stubs.h"

int main(int argc, char** argv) {
  (void)argc;
  void* addon = dlopen(argv[1], RTLD_NOW);
  if (addon == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  callback init = (callback)dlsym(addon, "napi_register_module_v1");
  init((void*)1, (void*)2);
  for (current = 0; current < count; current++) functions[current].call((void*)1, (void*)2);
  printf("%d functions, %d exceptions\n", count, thrown);
  return 0;
}
