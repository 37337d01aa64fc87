"""The convergence monitor in a plain PyTorch training loop.

The score is minus the logarithm of the validation loss: on that scale every halving is a gain, while on its own scale
all that follows the first of them would soon be less than 5 % of the range.

uv run python examples/stop_torch_loop.py
"""

import torch

from optix_core import Assessment, ConvergenceMonitor

BUDGET = 20_000


def main(budget: int = BUDGET) -> Assessment:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    monitor = ConvergenceMonitor()  # without a budget: the loop's limit is a cap, not an expectation
    for step in range(1, budget + 1):
        inputs = torch.rand(64, 2) * 4 - 2
        targets = torch.sin(inputs[:, :1]) * inputs[:, 1:] + 0.1 * torch.randn(64, 1)
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            with torch.no_grad():
                held_out = torch.rand(256, 2) * 4 - 2
                error = torch.nn.functional.mse_loss(model(held_out), torch.sin(held_out[:, :1]) * held_out[:, 1:])
            if monitor.update(-error.log().item(), step).should_stop:
                break
    return monitor.assessment


if __name__ == "__main__":
    found = main()
    print(f"{found.verdict} after {found.env_steps} of {BUDGET} updates. {found.explanation}")
