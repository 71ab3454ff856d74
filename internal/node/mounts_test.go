package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

func TestMountAt(t *testing.T) {
	n := plant(t, "machine")
	for _, tt := range []struct {
		path, source string // source "": no mount
		id           int
	}{
		{"/", "/dev/sda2", 22}, // not the hidden rootfs
		{"/mnt/nnf/xfs", "/dev/mapper/vg-lv", 30},
		{"/mnt/nnf/lustre", "10.1.1.1@o2ib:10.1.1.2@o2ib:/fs", 31},
		{"/mnt/nnf/a b\\c\td", "na me", 32},
		{"/mnt/stack", "top", 40}, // although it is first in the table
		{"/mnt/over", "cover", 51},
		{"/mnt/over/below", "", 0}, // a later mount hides it
		{"/mnt/nnf/xfs/sub/deep", "deeper", 53},
		{"/mnt/nnf", "", 0},
		{"/mnt/nnf/xf", "", 0},
		{"/mnt/nnf/xfs/", "", 0},
		{"/nowhere", "", 0},
		{"", "", 0},
	} {
		m, err := n.MountAt(tt.path)
		switch {
		case err != nil:
			t.Errorf("%s: %v", tt.path, err)
		case tt.source == "" && m != nil:
			t.Errorf("%s: found %+v", tt.path, *m)
		case tt.source != "" && (m == nil || m.Source != tt.source || m.ID != tt.id || m.Mountpoint != tt.path):
			t.Errorf("%s: got %+v, want %s", tt.path, m, tt.source)
		}
	}
}

func TestMountFields(t *testing.T) {
	m, err := plant(t, "machine").MountAt("/mnt/nnf/xfs")
	want := Mount{
		ID: 30, Parent: 22, Major: 253, Minor: 1, Root: "/", Mountpoint: "/mnt/nnf/xfs", FSType: "xfs",
		Source: "/dev/mapper/vg-lv", Propagation: "shared:10",
	}
	if err != nil || m == nil || *m != want {
		t.Errorf("got %+v, %v", m, err)
	}
	if d := want.Device().String(); d != "253:1" {
		t.Error("device", d)
	}
}

// Services of systemd have copies of the host's mounts, which are mounted and unmounted
// with them; a container keeps its copy.
func TestMountFollows(t *testing.T) {
	for _, tt := range []struct {
		copied, original string
		want             bool
	}{
		{"master:7", "shared:7", true},
		{"shared:9 master:7", "shared:7 master:1", true},
		{"shared:7", "shared:7", true},
		{"shared:9", "shared:7", false},
		{"", "shared:7", false},
		{"master:70", "shared:7", false},
		{"master:7", "", false},
		{"master:7", "master:7", false},
		{"propagate_from:7", "shared:7", false},
	} {
		if got := (Mount{Propagation: tt.copied}).follows(Mount{Propagation: tt.original}); got != tt.want {
			t.Errorf("%q of %q: %t", tt.copied, tt.original, got)
		}
	}
}

func TestMountsBelow(t *testing.T) {
	n := plant(t, "machine")
	for path, want := range map[string][]string{
		"/mnt/nnf/xfs": {"/mnt/nnf/xfs/sub", "/mnt/nnf/xfs/sub/deep"}, // not xfs-2
		"/mnt/over":    {"/mnt/over/below"},
		"/mnt/stack":   nil,
		"/nowhere":     nil,
	} {
		below, err := n.MountsBelow(path)
		must(t, err)
		var got []string
		for _, m := range below {
			got = append(got, m.Mountpoint)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestMountsOn(t *testing.T) {
	n := plant(t, "machine")
	for path, want := range map[string][]int{
		"/":               {1, 22},
		"/mnt/stack":      {40, 41, 42},
		"/mnt/over/below": {50}, // although a later mount hides it
		"/mnt/nnf/xfs":    {30},
		"/mnt/nnf":        nil,
		"/mnt/nnf/xf":     nil,
		"":                nil,
	} {
		on, err := n.MountsOn(path)
		must(t, err)
		var got []int
		for _, m := range on {
			got = append(got, m.ID)
			if m.Mountpoint != path {
				t.Errorf("%s: %+v", path, m)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

// mountByID returns the mount with this ID, including hidden ones.
func mountByID(t *testing.T, n *Node, id int) Mount {
	t.Helper()
	table, err := n.mounts(func(string) bool { return true })
	must(t, err)
	i := slices.IndexFunc(table, func(m Mount) bool { return m.ID == id })
	if i < 0 {
		t.Fatalf("no mount has the id %d", id)
	}
	return table[i]
}

func TestHiddenBy(t *testing.T) {
	n := plant(t, "machine")
	for id, by := range map[int]int{
		22: 0, 30: 0, 40: 0, 51: 0, 53: 0,
		1:  22, // the first root file system
		41: 40, // stacked
		42: 40, // two on top of it: the visible one
		50: 51, // a mount over its parent directory
	} {
		got, err := n.HiddenBy(mountByID(t, n, id))
		must(t, err)
		if (got != nil) != (by != 0) || got != nil && got.ID != by {
			t.Errorf("%d: %+v, want %d", id, got, by)
		}
	}
	for name, change := range map[string]func(*Mount){
		"unmounted":           func(m *Mount) { m.ID = 1000 },
		"id is another mount": func(m *Mount) { m.Mountpoint = "/mnt/nnf/xfs/sub" },
		"another device":      func(m *Mount) { m.Minor++ },
	} {
		gone := mountByID(t, n, 30)
		change(&gone)
		if by, err := n.HiddenBy(gone); !errors.Is(err, fs.ErrNotExist) || by != nil {
			t.Errorf("%s: %+v, %v", name, by, err)
		}
	}
}

func TestMountTableErrors(t *testing.T) {
	n := &Node{Root: t.TempDir()}
	if _, err := n.MountAt("/x"); err == nil || !strings.Contains(err.Error(), "mount table") {
		t.Errorf("no table: %v", err)
	}
	must(t, os.MkdirAll(filepath.Join(n.Root, "proc/self"), 0o755))
	must(t, os.WriteFile(filepath.Join(n.Root, "proc/self/mountinfo"), []byte("what is this\n"), 0o644))
	if _, err := n.MountAt("/x"); err == nil || !strings.Contains(err.Error(), "cannot parse the mount table") {
		t.Errorf("garbage: %v", err)
	}
}

// In a chroot the mount of / is not in the table.
func TestMountAtWithoutRoot(t *testing.T) {
	table := []Mount{{ID: 5, Parent: 4, Mountpoint: "/a"}, {ID: 6, Parent: 5, Mountpoint: "/a/b"}, {ID: 7, Parent: 4, Mountpoint: "/a/b/c"}}
	for path, id := range map[string]int{"/a": 5, "/a/b": 6, "/a/b/c": 6, "/a/x": 5} {
		if m := visible(table, path); m == nil || m.ID != id {
			t.Errorf("%s: %+v", path, m)
		}
	}
	if m := visible(table, "/x"); m != nil {
		t.Errorf("/x: %+v", m)
	}
}

// FuzzMountinfo checks that the search ends for any table, and that its result is in the
// table.
func FuzzMountinfo(f *testing.F) {
	a := filepath.Join("testdata", "machine.txtar")
	b, err := os.ReadFile(a)
	if err != nil {
		f.Fatal(err)
	}
	_, table, _ := strings.Cut(string(b), "mountinfo --\n")
	table, _, _ = strings.Cut(table, "-- ")
	f.Add(table, "/mnt/stack")
	f.Add("1 1 0:1 / / rw - t s rw\n1 1 0:1 / / rw - t s rw\n", "/")
	f.Add("1 2 0:1 / /a rw - t s rw\n2 1 0:1 / /a rw - t s rw\n", "/a")
	f.Add("36 35 98:0 /m\\0401 /m\\777 rw master:1 unbindable - ext3 /dev/r\\ rw\n", "/m\xff")
	f.Fuzz(func(t *testing.T, table, path string) {
		all, err := parseTable([]byte(table), func(string) bool { return true })
		if err != nil || !filepath.IsAbs(path) || len(path) > unix.PathMax || len(all) > 1000 {
			return
		}
		m := visible(all, path)
		if m == nil {
			return
		}
		if !slices.Contains(all, *m) || !safepath.Within(path, m.Mountpoint) {
			t.Errorf("%q: %+v", path, *m)
		}
		// MountAt uses only the mounts above path, which must give the same result.
		few := slices.DeleteFunc(slices.Clone(all), func(m Mount) bool { return !safepath.Within(path, m.Mountpoint) })
		if f := visible(few, path); f == nil || f.Mountpoint != m.Mountpoint {
			// It may differ only if a parent in the table is not above its child.
			for _, c := range all {
				for _, p := range all {
					if c.Parent == p.ID && !safepath.Within(c.Mountpoint, p.Mountpoint) {
						return
					}
				}
			}
			t.Errorf("%q: %+v in part of the table, %+v in all", path, f, *m)
		}
	})
}

const (
	hostTable = `25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
26 25 0:24 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
40 25 0:33 / /mnt/a\040b rw,relatime shared:20 - tmpfs / rw
`
	privateTable = `94 57 254:0 / / rw,relatime shared:36 master:1 - ext4 /dev/vda1 rw
95 94 0:24 / /proc rw,nosuid,nodev,noexec,relatime shared:37 master:13 - proc proc rw
`
)

// mountTables returns a Node with the mount tables of these processes; "" means no table.
func mountTables(t testing.TB, tables map[string]string) *Node {
	t.Helper()
	n := &Node{Root: t.TempDir()}
	for process, table := range tables {
		if table == "" {
			continue
		}
		dir := filepath.Join(n.Root, "proc", process)
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(filepath.Join(dir, "mountinfo"), []byte(table), 0o644))
	}
	return n
}

// withMounts returns a Node with this mount table.
func withMounts(t testing.TB, table string) *Node {
	t.Helper()
	return mountTables(t, map[string]string{"self": table})
}

func TestInHostMountNamespace(t *testing.T) {
	for name, c := range map[string]struct {
		host, self string // "" means no file
		same       bool
		detail     string
		err        string
	}{
		"host":               {hostTable, hostTable, true, "mount id of / is 25 here and 25 in process 1", ""},
		"private":            {hostTable, privateTable, false, "94 here and 25 in process 1", ""},
		"more mounts here":   {hostTable, hostTable + "99 25 0:50 / /run/x rw - tmpfs tmpfs rw\n", true, "25", ""},
		"/ mounted over":     {hostTable + "99 25 0:50 / / rw - tmpfs tmpfs rw\n", hostTable, false, "25 here and 99", ""},
		"no mount at /":      {hostTable, "26 25 0:24 / /proc rw - proc proc rw\n", false, "", "no mount at /"},
		"empty table":        {"\n", hostTable, false, "", "/proc/1/mountinfo"},
		"not a mount table":  {"what is this\n", hostTable, false, "", "/proc/1/mountinfo"},
		"process 1 hidden":   {"", hostTable, false, "", "no such file"},
		"no process":         {"", "", false, "", "no such file"},
		"no own table":       {hostTable, "", false, "", "/proc/self/mountinfo"},
		"device is named /":  {hostTable, "40 25 0:33 / /mnt rw - tmpfs / rw\n" + hostTable, true, "25", ""},
		"root of a bind dir": {hostTable, "41 25 254:0 /srv / rw - ext4 /dev/vda1 rw\n", false, "41 here", ""},
	} {
		t.Run(name, func(t *testing.T) {
			same, detail, err := mountTables(t, map[string]string{"1": c.host, "self": c.self}).InHostMountNamespace()
			if same != c.same || !strings.Contains(detail, c.detail) {
				t.Errorf("got %v, %q", same, detail)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}

// With the real kernel, in the namespace of this test and in a private one.
func TestInHostMountNamespaceForReal(t *testing.T) {
	if _, err := os.Stat("/proc/1/mountinfo"); err != nil {
		t.Skipf("the mount table of process 1 is hidden here: %v", err)
	}
	host, err1 := os.Readlink("/proc/1/ns/mnt")
	own, err2 := os.Readlink("/proc/self/ns/mnt")
	if err1 != nil || err2 != nil {
		t.Skipf("only root may see the namespace of process 1: %v", err1)
	}
	same, detail, err := new(Node).InHostMountNamespace()
	if err != nil || same != (host == own) {
		t.Errorf("%v (%s), %v; process 1 is in %s, this process in %s", same, detail, err, host, own)
	}
	if inNamespace(t) && same {
		t.Errorf("in a private namespace: %s", detail)
	}
}

// bigTable returns a Node whose mount table has count mounts.
func bigTable(t testing.TB, count int) *Node {
	var b strings.Builder
	b.WriteString("1 1 8:2 / / rw - ext4 /dev/sda2 rw\n")
	for i := range count {
		fmt.Fprintf(&b, "%d 1 0:%d / /mnt/some/where/m%d rw,relatime shared:%d - tmpfs tmpfs rw,size=1024k\n", i+2, i, i, i)
	}
	return withMounts(t, b.String())
}

func BenchmarkMountAt1000(b *testing.B) {
	n := bigTable(b, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if m, err := n.MountAt("/mnt/some/where/m500"); err != nil || m == nil {
			b.Fatal(m, err)
		}
	}
}
