// Where the program runs: prints its privilege level, and in ring 0 reads CR3, which any other ring
// may not. Not compared: the runner wants CPL 3 natively and CPL 0 under dbos-run.
#include <stdint.h>

#include "check.h"

int main() {
  uint16_t code_segment = 0;
  asm volatile("movw %%cs, %0" : "=r"(code_segment));
  check::print("CPL %d\n", code_segment & 3);
  if ((code_segment & 3) != 0) return 0;
  uint64_t root = 0;
  asm volatile("movq %%cr3, %0" : "=r"(root));
  if (root != 0) check::print("CR3 readable\n");
  return 0;
}
