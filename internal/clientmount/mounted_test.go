package clientmount

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
)

// The records that the daemon writes in the life of a ClientMount, as status
// counts them.
func TestReadMounted(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	runtime := filepath.Dir(b.rec.records.dir)
	look := func(want Mounted) {
		t.Helper()
		before, _ := os.ReadDir(runtime)
		got, err := ReadMounted(runtime, b.machine)
		if after, _ := os.ReadDir(runtime); err != nil || got != want || len(after) != len(before) {
			t.Errorf("%+v %v, want %+v", got, err, want)
		}
	}
	look(Mounted{})
	b.want(dws.Mounted)
	b.machine.fail["mount"] = errors.New("no such device")
	b.reconcile()
	if list, _ := b.rec.records.List(); len(list) != 1 {
		t.Fatalf("a mount that fails has %d records", len(list))
	}
	look(Mounted{})
	delete(b.machine.fail, "mount")
	b.reconcile()
	look(Mounted{Objects: 1})
	table := b.machine.table
	b.machine.table = nil // unmounted manually
	look(Mounted{})
	b.machine.table = table
	b.restart(b.rec.records)
	look(Mounted{Objects: 1})
	b.want(dws.Unmounted)
	b.reconcile()
	look(Mounted{})

	// Records that cannot be read are counted separately; half-written ones are not counted.
	for name, text := range map[string]string{"a.json": "{", "b.json": `{"version": 99}`, "c.json.new": "{"} {
		if err := os.WriteFile(filepath.Join(RecordsDirectory(runtime), name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	look(Mounted{Unreadable: 2})
	if got, err := ReadMounted(filepath.Join(runtime, "none"), b.machine); err != nil || got != (Mounted{}) {
		t.Errorf("%+v %v", got, err)
	}
	if err := errors.Join(os.RemoveAll(RecordsDirectory(runtime)), os.WriteFile(RecordsDirectory(runtime), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadMounted(runtime, b.machine); err == nil {
		t.Error("a file in the place of the directory passes for no mounts")
	}
}

// A table that cannot be read proves nothing: the record decides.
func TestReadMountedWithoutTable(t *testing.T) {
	for _, tt := range []struct {
		m    MountRecord
		want bool
	}{
		{MountRecord{}, false},
		{MountRecord{Mounting: true}, true},
		{MountRecord{Ready: true}, true},
		{MountRecord{Mounted: &Identity{ID: 7}}, true},
		{MountRecord{Mounted: &Identity{ID: 7}, Unmounted: true}, false},
	} {
		if got := tt.m.inPlace(noTable{}); got != tt.want {
			t.Errorf("%+v: %v", tt.m, got)
		}
	}
}

type noTable struct{}

func (noTable) MountsOn(string) ([]node.Mount, error) { return nil, errors.New("no /proc") }

// APIOf parses the API state from the status lines that the same package writes.
func TestAPIOf(t *testing.T) {
	for _, state := range []string{systemd.APIAnswers, systemd.APISilent, systemd.APIConnecting} {
		if got := APIOf("1 mount ready for 1 ClientMount" + apiTexts[state] + " since today: x" + apiTexts[systemd.APIAnswers]); got != state {
			t.Errorf("%s is read as %q", state, got)
		}
	}
	if got := APIOf("starting"); got != "" {
		t.Errorf("%q", got)
	}
}
