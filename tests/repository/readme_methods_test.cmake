# The README's table of methods is what the command prints of the registry.
# usage: cmake -DVOLLEY=... -DREADME=... -P readme_methods_test.cmake
execute_process(COMMAND ${VOLLEY} decoders --markdown RESULT_VARIABLE status OUTPUT_VARIABLE table)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "volley decoders --markdown failed (${status})")
endif()
string(STRIP "${table}" table)
file(READ ${README} readme)
string(FIND "${readme}" "<!-- volley decoders --markdown -->\n${table}\n<!-- end -->" place)
if(table STREQUAL "" OR place EQUAL -1)
  message(FATAL_ERROR "README.md lacks the registry's table; between its two marks must stand:\n${table}")
endif()
