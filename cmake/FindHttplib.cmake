# cpp-httplib with TLS: httplib::httplib. Debian builds it as a library whose options must be those of the header here;
# where only the header is found, it is compiled into whoever includes it.

find_package(OpenSSL)
find_path(Httplib_INCLUDE_DIR httplib.h)
find_library(Httplib_LIBRARY cpp-httplib)
mark_as_advanced(Httplib_INCLUDE_DIR Httplib_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Httplib REQUIRED_VARS Httplib_INCLUDE_DIR OPENSSL_FOUND)
if(Httplib_FOUND AND NOT TARGET httplib::httplib)
  add_library(httplib::httplib INTERFACE IMPORTED)
  target_include_directories(httplib::httplib INTERFACE ${Httplib_INCLUDE_DIR})
  target_compile_definitions(httplib::httplib INTERFACE CPPHTTPLIB_OPENSSL_SUPPORT)
  target_link_libraries(httplib::httplib INTERFACE OpenSSL::SSL OpenSSL::Crypto)
  if(Httplib_LIBRARY)
    target_compile_definitions(httplib::httplib INTERFACE CPPHTTPLIB_ZLIB_SUPPORT CPPHTTPLIB_BROTLI_SUPPORT)
    target_link_libraries(httplib::httplib INTERFACE ${Httplib_LIBRARY})
  endif()
endif()
