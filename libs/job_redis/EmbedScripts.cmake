# cmake -DOUT=scripts.cc -DDIR=scripts -DNAMES=a,b -P EmbedScripts.cmake: scripts as string constants. A script that does not
# start with `#!lua` gets that line and the prelude put before it.
string(REPLACE "," ";" NAMES "${NAMES}")
file(READ "${DIR}/prelude.lua" prelude)
set(text "// Made from scripts/*.lua by EmbedScripts.cmake.\n#include \"job_redis/scripts.h\"\n\nnamespace parley::job::scripts {\n")
# A compiler takes at most 64 KiB in one literal, so the prelude is a literal of its own.
foreach(name IN LISTS NAMES)
  file(READ "${DIR}/${name}.lua" body)
  if(body MATCHES "^#!lua")
    set(literal "R\"lua(${body})lua\"")
  else()
    set(literal "\"#!lua\\n\"\n    R\"lua(${prelude})lua\"\n    R\"lua(${body})lua\"")
  endif()
  string(APPEND text "const redis::Script ${name}{\"${name}\",\n    ${literal}};\n")
endforeach()
string(APPEND text "}  // namespace parley::job::scripts\n")
file(WRITE "${OUT}.tmp" "${text}")
file(RENAME "${OUT}.tmp" "${OUT}")
