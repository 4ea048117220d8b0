"""CuPy: elementwise work, a kernel compiled at run time, cuBLAS, cuFFT, sorting and reductions, on two streams."""
import cupy

from common import finish

rng = cupy.random.RandomState(seed=1)
a = rng.standard_normal((1024, 1024)).astype(cupy.float32)
kernel = cupy.RawKernel(r'''
extern "C" __global__ void blur(const float *in, float *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = 0.25f * in[i > 0 ? i - 1 : 0] + 0.5f * in[i] + 0.25f * in[i < n - 1 ? i + 1 : i];
}''', "blur")
blurred = cupy.empty_like(a)
for _ in range(10):
    kernel(((a.size + 255) // 256,), (256,), (a, blurred, a.size))
    a, blurred = blurred, a
cupy.cuda.Device().synchronize()
with cupy.cuda.Stream(non_blocking=True) as s:
    product = a @ a.T
    s.synchronize()
spectrum = cupy.abs(cupy.fft.fft2(a))
ordered = cupy.sort(a.ravel())
out = {"blur": a, "product": product, "spectrum": spectrum, "ordered": ordered, "sum": a.sum(axis=0), "exp": cupy.exp(a).cumsum(axis=1)}
cupy.cuda.Device().synchronize()
finish(out, {name: float(cupy.abs(t).mean()) for name, t in out.items()})
