package container

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// storage is the storage of a node: volumes with real file systems, and fakes of the programs of
// LVM and NVMe.
type storage struct {
	t     *testing.T
	m     *machine.Machine
	tools record.Dir // state of the fake tools on the node
}

// newStorage replaces the programs of LVM and NVMe on a node.
func newStorage(t *testing.T, m *machine.Machine) storage {
	t.Helper()
	const dir = "/opt/faketools"
	m.Do("mkdir -p " + dir + "/bin " + dir + "/state /dev/mapper")
	data, err := os.ReadFile(filepath.Join(m.Fixture.Bin, "faketools"))
	if err != nil {
		t.Fatal(err)
	}
	m.Put(dir+"/bin/faketools", 0o755, data)
	m.Do("cd " + dir + "/bin && for p in lvs vgs lvchange vgchange nvme dlm_tool; do ln faketools $p && ln -sf $PWD/$p /usr/sbin/; done")
	return storage{t, m, record.Dir(m.Outside(dir + "/state"))}
}

// xfs creates a volume with xfs that the node can activate, and returns a mount of it below
// /mnt/nnf and its name in the form VG/LV.
func (s storage) xfs(name string, index int) (fixture.MountSpec, string) {
	s.t.Helper()
	vg, lv := fixture.VolumeNames(s.m.Fixture.Owner, "0", index, true)
	if err := s.tools.Update(func(state *record.State) error {
		if slices.ContainsFunc(state.Volumes, func(v *record.Volume) bool { return v.VG == vg && v.LV == lv }) {
			return nil
		}
		v := s.m.Fixture.Volume(index, lab.VolumeOptions{})
		state.Volumes = append(state.Volumes, &record.Volume{VG: vg, LV: lv, Node: v.Node, Major: 7, Minor: uint32(v.Loop)})
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
	return fixture.MountSpec{Path: "/mnt/nnf/" + name, Type: "xfs", Index: index}, vg + "/" + lv
}

// start starts both daemons, clientmountd with short times, and creates the profile of the workflow.
func (s storage) start() {
	s.t.Helper()
	s.m.Setting("clientmountd", "20-test", "[mount]\nretry_max = \"1s\"\ncommand_timeout = \"1s\"\n")
	// The fake lvchange creates device nodes, as the kernel does for LVM.
	s.m.Put("/etc/systemd/system/clientmountd.service.d/20-test.conf", 0o644, []byte("[Service]\nCapabilityBoundingSet=CAP_MKNOD\n"))
	s.m.Do("systemctl daemon-reload && systemctl start clientmountd nnf-dm.socket")
	s.m.Fixture.UseProfile(fixture.ProfileSpec{})
}

// faults makes the fake tools misbehave.
func (s storage) faults(list ...*record.Fault) {
	s.t.Helper()
	if err := s.tools.Update(func(state *record.State) error { state.Faults = list; return nil }); err != nil {
		s.t.Fatal(err)
	}
}
