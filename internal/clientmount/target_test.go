package clientmount

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
)

// The directories for the target are on disk before they are made: whenever
// the daemon dies, somebody knows whom they belong to.
func TestTargetIsRecordedBeforeItIsMade(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.machine.missing = []string{"/mnt/nnf", testPath}
	var onDisk []string
	b.machine.making = func() {
		rec, err := b.rec.records.Load("aaaa-1")
		if err != nil {
			t.Fatal(err)
		}
		onDisk = rec.Mounts[0].Created
	}
	b.reconcile()
	b.expect("in the record before the target is made", onDisk, []string{"/mnt/nnf", testPath})
	// The fake made only the last one: somebody else was faster.
	b.expect("in the record afterwards", b.work.record.Mounts[0].Created, []string{testPath})
}

func TestTargetRecordThatCannotBeSaved(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.machine.missing = []string{testPath}
	made := false
	b.machine.making = func() { made = true }
	r := b.task("aaaa-1").newRunner(&plan.Plan{Path: testPath}, &MountRecord{}, func() error { return errors.New("disk full") })
	if err := r.makeTarget("x"); err == nil || made {
		t.Errorf("%v, made %t", err, made)
	}
}

func TestUnion(t *testing.T) {
	a := []string{"/a", "/a/b"}
	if got := union(a, []string{"/a/b", "/a/b/c"}); !slices.Equal(got, []string{"/a", "/a/b", "/a/b/c"}) || len(a) != 2 {
		t.Errorf("%q", got)
	}
}

// Half a record that a crash left vanishes at the next start, the whole one
// stays.
func TestHalfWrittenRecords(t *testing.T) {
	dir := t.TempDir()
	records, err := OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := records.Save(&Record{Version: recordVersion, UID: "a-1"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a-1.json.new", "b-2.json.new"} {
		if err := os.WriteFile(filepath.Join(dir, "mounts", name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = OpenRecords(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(filepath.Join(dir, "mounts"))
	if err != nil || len(left) != 1 || left[0].Name() != "a-1.json" {
		t.Errorf("%v %v", left, err)
	}
}

// A directory that was made for one mount of an object and stayed because of
// another goes when the last one is unmounted; nothing is looked at again
// without need.
func TestTargetLeftBehindGoesLater(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.done()
	b.machine.stays = []string{"/mnt/nnf"}
	b.want(dws.Unmounted)
	b.reconcile()
	removals := func() (out []string) {
		for _, line := range b.machine.done() {
			if strings.HasPrefix(line, "remove ") {
				out = append(out, line)
			}
		}
		return out
	}
	b.expect("unmount, then once more", removals(), []string{"remove " + testPath + " [" + testPath + "]", "remove " + testPath + " [/mnt/nnf]"})
	b.machine.stays = nil
	b.delete()
	b.reconcile()
	b.expect("and at the deletion", removals(), []string{"remove " + testPath + " [/mnt/nnf]"})
}

// A target that cannot be removed is worth a line in the log; a directory that another
// mount uses, too, is ordinary.
func TestTargetLeftBehindIsLogged(t *testing.T) {
	for name, tt := range map[string]struct {
		left []string
		err  error
		want string
	}{
		"nothing left":    {nil, nil, ""},
		"a shared parent": {[]string{"/mnt/nnf"}, nil, "level=DEBUG"},
		"the target":      {[]string{testPath, "/mnt/nnf"}, unix.ENOTEMPTY, "level=INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			b.reconcile()
			var out bytes.Buffer
			b.rec.log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
			b.machine.stays = tt.left
			if tt.err != nil {
				b.machine.fail["remove"] = tt.err
			}
			b.want(dws.Unmounted)
			b.reconcile()
			got := ""
			for line := range strings.Lines(out.String()) {
				// removeLeftTargets looks at the same target again, and logs that at debug.
				if strings.Contains(line, " path=") && strings.Contains(line, " left=") {
					got += line
				}
			}
			if !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") || strings.Count(got, "\n") > 1 {
				t.Errorf("logged %q, want %q", got, tt.want)
			}
		})
	}
}
