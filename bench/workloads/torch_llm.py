"""PyTorch and transformers: a small Llama with random weights, trained and asked to generate, in bf16."""
from common import deterministic_torch, finish

torch = deterministic_torch()
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

config = LlamaConfig(vocab_size=4096, hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8,
                     num_key_value_heads=4, max_position_embeddings=512)
model = LlamaForCausalLM(config).cuda().to(torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
tokens = torch.randint(0, 4096, (4, 256)).cuda()
for _ in range(4):
    optimizer.zero_grad(set_to_none=True)
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
model.eval()
generated = model.generate(input_ids=tokens[:2, :16], attention_mask=torch.ones_like(tokens[:2, :16]), max_new_tokens=24,
                           do_sample=False, pad_token_id=0)
finish({"weights": torch.cat([p.flatten() for p in model.parameters()]), "generated": generated}, {"loss": loss.item()})
