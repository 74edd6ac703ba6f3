#define EV_SCALAR
#include "kernel_form.h"

test::Kernels test::scalar_kernels() { return kernels(); }
