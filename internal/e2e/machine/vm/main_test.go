package vm

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, machine.VMTools...)) }

// One machine serves all stages, in this order: a boot takes longer than most of
// them. What changes the machine for good comes last.
var stages = []struct {
	name string
	run  func(*testing.T)
}{
	{"boot", func(t *testing.T) { node(t) }},
	{"kinds", kinds},
	{"failed", failed},
	{"killed", killed},
	{"late", late},
	{"renumbered", renumbered},
	{"gone", gone},
	{"upgrade", upgrade},
	{"shared", shared},
	{"reboot", reboot},
	{"power-cut", powerCut},
}

func TestMachine(t *testing.T) {
	machine.Need(t)
	for _, s := range stages {
		began := time.Now()
		t.Run(s.name, s.run)
		if took := time.Since(began); took > 10*time.Millisecond { // else -run has not asked for it
			t.Logf("stage %s: %.1f s", s.name, took.Seconds())
		}
		if theNode != nil && !theNode.Alive() {
			t.Fatal("the machine does not answer any more: the stages behind this one are not run")
		}
	}
}

var theNode *machine.Machine

// node is the machine, with clientmountd installed and running. It boots when
// it is needed first.
func node(t *testing.T) *machine.Machine {
	t.Helper()
	if theNode != nil {
		return theNode.For(t)
	}
	m := machine.VM(t, machine.VMOptions{Attached: attached, Detached: detached, Newer: true})
	m.Install()
	began := time.Now()
	m.Configure()
	m.Do("systemctl enable --now clientmountd")
	m.Do("systemctl daemon-reload")
	for _, line := range m.UnitWarnings() {
		t.Error("systemd warns about one of our units: ", line)
	}
	t.Logf("configured and started in %.1f s", time.Since(began).Seconds())
	theNode = m
	return m
}

// tight is the drop-in for sites without hooks, as it is shipped.
func tight(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(world.Root(t), "systemd/examples/clientmountd.service.d/40-tight.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// under runs a test under the unit as it is shipped, and then as narrow as the
// drop-in makes it.
func under(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("shipped", test)
	t.Run("tight", func(t *testing.T) {
		const dropIn = "/etc/systemd/system/clientmountd.service.d/40-tight.conf"
		m := node(t)
		m.Put(dropIn, 0o644, tight(t))
		m.Do("systemctl daemon-reload && systemctl restart clientmountd")
		defer m.Do("rm " + dropIn + " && systemctl daemon-reload && systemctl restart clientmountd")
		if policy := m.Property("clientmountd", "DevicePolicy"); policy != "closed" {
			t.Fatalf("the drop-in is not in force: DevicePolicy is %q", policy)
		}
		test(t)
	})
}
