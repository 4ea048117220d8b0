"""JAX: a jitted training step of a small network with a scan."""
import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from common import finish  # noqa: E402

assert jax.devices()[0].platform == "gpu", f"JAX found no GPU: {jax.devices()}"
keys = jax.random.split(jax.random.PRNGKey(1), 5)
params = [jax.random.normal(keys[0], (256, 512)) * 0.05, jax.random.normal(keys[1], (512, 256)) * 0.05]
x, y = jax.random.normal(keys[2], (128, 256)), jax.random.normal(keys[3], (128, 256))


def loss_of(p):
    def body(h, _):
        return jnp.tanh(jnp.tanh(h @ p[0]) @ p[1]), None
    h, _ = jax.lax.scan(body, x, None, length=4)
    return jnp.mean((h - y) ** 2)


@jax.jit
def step(p):
    value, gradient = jax.value_and_grad(loss_of)(p)
    return [w - 0.1 * g for w, g in zip(p, gradient)], value


for _ in range(20):
    params, loss = step(params)
fft = jnp.abs(jnp.fft.fft(x))
jax.block_until_ready((params, fft))
finish({"w0": params[0], "w1": params[1], "fft": fft}, {"loss": float(loss)})
