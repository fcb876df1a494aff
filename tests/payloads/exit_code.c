// cc: -static-pie
/* Exits with the code it was built with: which file really ran cannot be mistaken. */
#ifndef CODE
#define CODE 7
#endif
int main(void) { return CODE; }
