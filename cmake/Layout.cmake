# Where things lie, the same below the build folder, an installation prefix and the tarball of `make dist`.
set(LITHOS_BIN_DIR bin)                    # lithos, lithosd
set(LITHOS_LIB_DIR lib/lithos)             # liblithos.so
set(LITHOS_VGPU_LIB_DIR lib/lithos/vgpu)   # libcuda.so.1 of the virtual GPU
set(LITHOS_LIBEXEC_DIR libexec/lithos)     # lithos-probe, lithos-vgpud, the sample tenants
set(LITHOS_VGPU_BIN_DIR libexec/lithos/vgpu) # nvidia-cuda-mps-control of the virtual GPU
set(LITHOS_SHARE_DIR share/lithos)         # cards/*.json, costs/*.json, kernels/*.ptx
set(LITHOS_MAN_DIR share/man)
