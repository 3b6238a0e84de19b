# Sourced by pack and run: how CMake is told to take the libraries from a packed folder.
# shellcheck shell=bash

# deps_options FOLDER: fills the array `options`. Every library is given by the place of its CMake file, so that none is taken
# from the system by chance; the others answer through tools/gpu/pkg-config, whether or not there is a pkg-config.
deps_options() {
  local deps=$1 config name
  while IFS= read -r config; do
    name=$(basename "$config" Config.cmake)
    options+=("-D${name%-config.cmake}_DIR=$(dirname "$config")")
  done < <(find "$deps" -name '*Config.cmake' -o -name '*-config.cmake')
  options+=("-DPKG_CONFIG_EXECUTABLE=$PWD/tools/gpu/pkg-config" "-DZLIB_INCLUDE_DIR=$deps/usr/include"
    "-DZLIB_LIBRARY=$deps/usr/lib/libz.a" -DLLM_SERVING=OFF)
  export PKG_CONFIG_LIBDIR=$deps/usr/lib/pkgconfig
}
