#include "rig.h"
const struct CMUnitTest *s3_bad_tests(size_t *c) { *c = 0; return NULL; }
