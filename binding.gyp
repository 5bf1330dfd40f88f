{
  "variables": { "prebuilt%": "false" },
  "targets": [
    {
      "target_name": "handover",
      "conditions": [
        [
          "OS=='win'",
          { "type": "none" },
          {
            "sources": ["native/handover.cc", "native/tls-watch.cc", "native/tls-records.cc"],
            "include_dirs": ["<!(node -p \"require('node-addon-api').include_dir\")"],
            "defines": [
              "NAPI_VERSION=8",
              "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS",
              "NODE_ADDON_API_DISABLE_DEPRECATED",
              "NODE_ADDON_API_ENABLE_MAYBE",
              "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
            ],
            "cflags": ["-Wall", "-Wextra", "-Werror"],
            "cflags_cc": ["-std=c++17", "-fno-exceptions", "-fno-rtti"],
            "xcode_settings": { "MACOSX_DEPLOYMENT_TARGET": "11.0", "CLANG_CXX_LANGUAGE_STANDARD": "c++17" }
          }
        ],
        [
          "OS=='linux' and prebuilt=='true'",
          {
            "sources": ["native/runtime.cc"],
            "cflags": ["-ffunction-sections", "-fdata-sections"],
            "ldflags": ["-nodefaultlibs", "-Wl,--version-script=<(module_root_dir)/native/exports.map", "-Wl,--gc-sections", "-s"]
          }
        ]
      ]
    }
  ]
}
