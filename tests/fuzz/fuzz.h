/* A fuzz target: links with libFuzzer, or with runner.c, which mutates the seeds itself a fixed number of times. */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* The n-th seed into buf (at most size bytes): its length, or 0 when there are no more. */
size_t lithos_fuzz_seed(size_t n, uint8_t *buf, size_t size);
