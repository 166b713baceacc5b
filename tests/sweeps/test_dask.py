import os

import pytest

from chainrule.errors import SweepError
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps import connect_dask, make_factory_grid, make_grid, run
from sweep_factories import die_at

distributed = pytest.importorskip("distributed")


@pytest.mark.slow
def test_two_workers_give_the_same_bits_and_one_that_dies_loses_nothing(tmp_path, monkeypatch):
    folder = os.path.dirname(__file__)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, path]))
    arguments = {"bad": 3, "marks": str(tmp_path), "always": False}
    cells = [
        *make_grid({"depth": [2, 4]}, NetworkSpec(width=8), seeds=2),
        *make_factory_grid(die_at, {"width": [1, 2, 3, 4]}, arguments=arguments),
    ]
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
        ) as cluster,
        connect_dask(cluster.scheduler_address) as executor,
    ):
        far = run(cells, executor, store=tmp_path / "a.db", progress=lambda _: None)
    assert (tmp_path / "died-3").exists()  # a worker was lost while it measured
    assert not far.failed
    assert run(cells, processes=1) == far
    again = run(cells, processes=1, store=tmp_path / "a.db")
    assert again == far
    assert all(each.kept for each in again)


def test_a_cluster_that_does_not_answer_says_so(monkeypatch):
    def refuse(address, timeout):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(SweepError, match="tcp://x:1"), connect_dask("tcp://x:1"):
        pass
