"""What a machine with an Ascend NPU has: driver, devices, CANN, plugin, and which go together."""

import sys

import pytest
from conftest import FAKES
from deepspeech2.cli import UserError
from deepspeech2.engines import ascend, torch_aie

SMI = (FAKES / "npu_smi.txt").read_text()


def test_what_npu_smi_prints_is_read():
    driver, devices = ascend.read_smi(SMI)
    assert driver == "23.0.0"
    assert devices == [(0, "310P3", "OK"), (1, "910B4-1", "Warning"), (2, "910B4-1", "OK")]
    assert (
        ascend.read_smi(SMI.replace("0                     ", "0     7               "))[1][0][0]
        == 7
    )
    assert ascend.soc_version(devices[0]) == "Ascend310P3"
    assert ascend.soc_version(devices[0]._replace(name="Ascend310P1")) == "Ascend310P1"
    assert ascend.read_smi("") == (None, [])


def test_the_version_of_cann_comes_from_its_folder(tmp_path):
    home = tmp_path / "latest"
    (home / "aarch64-linux").mkdir(parents=True)
    assert ascend.cann({}) is None
    assert ascend.cann({"ASCEND_HOME_PATH": str(home)}) == "unknown version"
    info = home / "aarch64-linux" / "ascend_toolkit_install.info"
    info.write_text("package_name=Ascend-cann-toolkit\nversion=7.0.RC1\ninnerversion=V100\n")
    assert ascend.cann({"ASCEND_TOOLKIT_HOME": str(home)}) == "7.0.RC1"


def test_a_folder_of_the_name_is_no_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch_aie").mkdir()
    assert ascend.package() is None
    (tmp_path / "mindietorch.py").write_text("raise OSError('libascendcl.so: cannot open')\n")
    assert ascend.package() == "mindietorch"
    with pytest.raises(UserError, match=r"mindietorch is installed but .*libascendcl.*set_env"):
        ascend.plugin()


def test_versions_that_are_not_known_to_go_together_are_doubtful(monkeypatch, tmp_path):
    assert ascend.is_compatible("torch_aie", "2.0.1+cpu", "3.9.11")
    assert ascend.is_compatible("mindietorch", "2.1.0", "3.10.2")
    assert not ascend.is_compatible("torch_aie", "2.1.0", "3.9.11")
    assert not ascend.is_compatible("torch_aie", "2.0.1", "3.10.2")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch_aie.py").write_text("")
    found = torch_aie.Backend.examine()
    assert found.missing == []
    assert any("is not a known combination" in doubt for doubt in found.doubts)
    del sys.modules["torch_aie"]
