// Where count.c is to write down what it has counted so far.
#pragma once

#include <unistd.h>

inline void mark(int number) { getpgid(0x45560000 + number); }
