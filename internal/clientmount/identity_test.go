package clientmount

import (
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// The kernel's device decides; text of the source never does.
func TestOurs(t *testing.T) {
	dm := node.Mount{ID: 5, Mountpoint: testPath, FSType: "xfs", Source: testDevice, Root: "/", Major: 253, Minor: 7}
	with := func(change func(m *node.Mount)) node.Mount { m := dm; change(&m); return m }
	raw := node.Mount{ID: 5, Mountpoint: testPath, FSType: "devtmpfs", Source: "devtmpfs", Root: "/dm-7", Minor: 5}
	lustre := node.Mount{ID: 5, Mountpoint: testPath, FSType: "lustre", Source: "10.1.1.2@tcp0:/job7fs", Root: "/"}
	for name, c := range map[string]struct {
		typ    string
		m      node.Mount
		active bool // the device node exists
		noted  bool // we noted this mount after making it
		want   bool
	}{
		"our device":                        {"xfs", dm, true, false, true},
		"source text alone is no proof":     {"xfs", with(func(m *node.Mount) { m.Major = 8 }), true, false, false},
		"source text differs, device ours":  {"xfs", with(func(m *node.Mount) { m.Source = "/dev/dm-7" }), true, false, true},
		"another type":                      {"xfs", with(func(m *node.Mount) { m.FSType = "ext4" }), true, false, false},
		"node gone, device mapper knows":    {"xfs", dm, false, false, true},
		"node gone, another device":         {"xfs", with(func(m *node.Mount) { m.Major = 8 }), false, false, false},
		"node gone, noted":                  {"xfs", with(func(m *node.Mount) { m.Major = 7 }), false, true, true},
		"noted, but the node says no":       {"xfs", with(func(m *node.Mount) { m.Major = 7 }), true, true, false},
		"raw":                               {"none", raw, true, false, true},
		"raw, another device":               {"none", func() node.Mount { m := raw; m.Root = "/sda"; return m }(), true, false, false},
		"raw, device removed, noted":        {"none", func() node.Mount { m := raw; m.Root = "/gone//deleted"; return m }(), false, true, true},
		"raw, a file system is mounted":     {"none", dm, true, false, false},
		"lustre, NID spelled differently":   {"lustre", lustre, true, false, true},
		"lustre, another file system":       {"lustre", func() node.Mount { m := lustre; m.Source = "10.1.1.2@tcp:/other"; return m }(), true, false, false},
		"lustre, noted, other source":       {"lustre", func() node.Mount { m := lustre; m.Source = "192.0.2.9@tcp:/job7fs"; return m }(), true, true, true},
		"lustre expected, something local":  {"lustre", dm, true, false, false},
		"xfs expected, lustre of same name": {"xfs", lustre, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := plan.ForMount(testObject(c.typ), 0, testProfile(), plan.Options{})
			if err != nil {
				t.Fatal(err)
			}
			f := newFakeMachine()
			f.lvs[testVG+"/"+testLV] = c.active
			var rec *MountRecord
			if c.noted {
				rec = &MountRecord{Mounted: identityOf(c.m)}
			}
			if got, err := ours(f, c.m, p, rec); got != c.want || err != nil {
				t.Errorf("ours = %v, %v", got, err)
			}
		})
	}
}

// The kernel reuses mount ids and the numbers of anonymous devices at once.
func TestIdentity(t *testing.T) {
	lustre := node.Mount{ID: 5, FSType: "lustre", Source: "10.1.1.2@tcp:/job7fs", Root: "/", Minor: 77}
	disk := node.Mount{ID: 5, FSType: "xfs", Source: "/dev/mapper/a", Root: "/", Major: 253, Minor: 7}
	for name, c := range map[string]struct {
		m      node.Mount
		change func(m *node.Mount)
		want   bool
	}{
		"same":                     {lustre, func(*node.Mount) {}, true},
		"reused by another server": {lustre, func(m *node.Mount) { m.Source = "10.9.9.9@tcp:/other" }, false},
		"device renamed":           {disk, func(m *node.Mount) { m.Source = "/dev/dm-7" }, true},
		"mount id reused":          {disk, func(m *node.Mount) { m.Minor = 8 }, false},
		"another mount":            {disk, func(m *node.Mount) { m.ID = 6 }, false},
		"a directory of it":        {disk, func(m *node.Mount) { m.Root = "/sub" }, false},
		"another type":             {disk, func(m *node.Mount) { m.FSType = "ext4" }, false},
	} {
		id, now := identityOf(c.m), c.m
		if c.change(&now); id.is(now) != c.want {
			t.Errorf("%s: %t", name, !c.want)
		}
	}
	if (*Identity)(nil).is(disk) {
		t.Error("no identity is no mount")
	}
}

// A mount that an earlier daemon has made is recognised although the kernel shows
// an address where the object has a host name.
func TestOursByHostName(t *testing.T) {
	cm := testObject(dws.TypeLustre)
	cm.Spec.Mounts[0].Device.Lustre.MGSAddresses = "mgs.example.org@tcp"
	p, err := plan.ForMount(cm, 0, testProfile(), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]bool{"192.0.2.1@tcp:/job7fs": true, "192.0.2.2@tcp:/job7fs": false, "192.0.2.1@tcp:/other": false} {
		m := node.Mount{Mountpoint: testPath, FSType: "lustre", Source: source, Root: "/"}
		if got, err := ours(newFakeMachine(), m, p, nil); got != want || err != nil {
			t.Errorf("%s: %t %v", source, got, err)
		}
	}
}

func TestForeignText(t *testing.T) {
	p, err := plan.ForMount(testObject(dws.TypeXFS), 0, testProfile(), plan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	text := errForeign(node.Mount{Source: "/dev/sda1", FSType: "ext4", Major: 8, Minor: 1}, p).Error()
	if !strings.HasPrefix(text, "unexpected mount at path "+testPath+". Device /dev/sda1") || !strings.Contains(text, "type ext4") {
		t.Error(text)
	}
}

func TestShorten(t *testing.T) {
	long := strings.Repeat("ä", 5000)
	got := shorten(long, 1000)
	if len(got) > 1000 || !strings.HasPrefix(got, "ää") || !strings.HasSuffix(got, "ää") || !strings.Contains(got, "shortened") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("%d %q", len(got), got)
	}
	if shorten("short", 1000) != "short" {
		t.Error("short text changed")
	}
}

// Pauses grow, have jitter and stay at or below the ceiling.
func TestPause(t *testing.T) {
	for n := 1; n < 40; n++ {
		for range 20 {
			d := pause(n, 30*time.Second, false)
			if d > 30*time.Second || d < firstPause*8/10 || n > 10 && d < 24*time.Second {
				t.Fatalf("pause %d is %v", n, d)
			}
		}
	}
	if d := pause(1, 30*time.Second, true); d < 24*time.Second {
		t.Errorf("a hopeless case is looked at again after %v", d)
	}
}
