package datamovement

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// The table of the contract, nnf-dm.md 4.2.2, and its neighbours.
func TestMapSource(t *testing.T) {
	const c, r = "/mnt/nnf/U-0", "/mnt/nnf/U-0/rabbit-01-3"
	for source, want := range map[string]string{
		c + "/a/b": r + "/a/b",
		c + "/a/":  r + "/a/",
		c:          r,
		c + "/":    r + "/",

		c + "//a/./b":         r + "/a/b",
		c + "/.":              r + "/",
		"/mnt//nnf/./U-0/a//": r + "/a/",
	} {
		m, got, err := MapSource(source, []Mount{mountAt(node, c, "gfs2")}, []Mount{mountAt(rabbit, r, "gfs2")}, node, rabbit)
		if err != nil || got != want || m.Path != c {
			t.Errorf("%s: %s, mount %s, %v; want %s", source, got, m.Path, err, want)
		}
	}
	for _, x := range []struct {
		source string
		kind   error
		reason Reason
		text   string
	}{
		{"/mnt/nnf/U-01/x", ErrFailed, ReasonMountNotFound, "source path '/mnt/nnf/U-01/x' not found in list of client mounts"},
		{"/mnt/nnf", ErrFailed, ReasonMountNotFound, "not found in list"},
		{"/etc/shadow", ErrFailed, ReasonMountNotFound, "not found in list"},
		{c + "/../../etc/x", ErrInvalid, ReasonInvalidField, ".."},
		{c + "//../x", ErrInvalid, ReasonInvalidField, ".."},
		{"x", ErrInvalid, ReasonInvalidField, "absolute"},
		{"", ErrInvalid, ReasonInvalidField, "missing"},
		{c + "/" + strings.Repeat("12345678/", 453), ErrInvalid, ReasonInvalidField, "longer than 4095 bytes on the rabbit"},
	} {
		_, p, err := MapSource(x.source, []Mount{mountAt(node, c, "gfs2")}, []Mount{mountAt(rabbit, r, "gfs2")}, node, rabbit)
		wantFault(t, err, x.kind, x.reason, x.text)
		if p != "" {
			t.Errorf("%s: path %q beside an error", x.source, p)
		}
	}
}

// Longest match by whole names, whatever the order of the list.
func TestFindMountLongest(t *testing.T) {
	paths := []string{"/mnt/nnf/U-1", "/mnt/nnf/U-10", "/mnt/nnf/U-1/in", "/mnt/nnf/U-1/inner"}
	for i := range paths {
		var list []Mount
		for j := range paths {
			list = append(list, mountAt(node, paths[(i+j)%len(paths)], "lustre"))
		}
		for source, want := range map[string]string{
			"/mnt/nnf/U-10/x": "/mnt/nnf/U-10", "/mnt/nnf/U-1/x": "/mnt/nnf/U-1", "/mnt/nnf/U-1/in": "/mnt/nnf/U-1/in",
			"/mnt/nnf/U-1/in/": "/mnt/nnf/U-1/in", "/mnt/nnf/U-1/inne": "/mnt/nnf/U-1", "/mnt/nnf/U-1/inner/x": "/mnt/nnf/U-1/inner",
		} {
			if m, err := FindMount(source, list, node); err != nil || m.Path != want {
				t.Errorf("%s: %s %v, want %s", source, m.Path, err, want)
			}
		}
	}
}

func TestFindMountRefuses(t *testing.T) {
	now := metav1.NewTime(time.Unix(1, 0))
	for _, c := range []struct {
		name   string
		typ    string
		change func(*dws.ClientMount)
		kind   error
		reason Reason
		text   string
	}{
		{"xfs", "xfs", nil, ErrInvalid, ReasonFileSystem, "filesystem not supported: 'xfs'"},
		{"raw", "none", nil, ErrInvalid, ReasonFileSystem, "filesystem not supported: 'none'"},
		{"hostile type", "x'\n", nil, ErrInvalid, ReasonFileSystem, `filesystem not supported: 'x'\n'`},
		{"being unmounted", "gfs2", func(c *dws.ClientMount) { c.Spec.DesiredState = dws.Unmounted }, ErrFailed, ReasonMountNotReady, "is not mounted"},
		{"not ready", "gfs2", func(c *dws.ClientMount) { c.Status.Mounts[0].Ready = false }, ErrFailed, ReasonMountNotReady, "is not mounted"},
		{"ready to be unmounted", "gfs2", func(c *dws.ClientMount) { c.Status.Mounts[0].State = dws.Unmounted }, ErrFailed, ReasonMountNotReady, "is not mounted"},
		{"no status yet", "gfs2", func(c *dws.ClientMount) { c.Status.Mounts = nil }, ErrFailed, ReasonMountNotReady, "is not mounted"},
		{"being deleted", "gfs2", func(c *dws.ClientMount) { c.DeletionTimestamp = &now }, ErrFailed, ReasonMountNotReady, "is not mounted"},
		{"gfs2 without reference", "gfs2", func(c *dws.ClientMount) { c.Spec.Mounts[0].Device.DeviceReference = nil }, ErrFailed, ReasonMountNotFound,
			"ClientMount compute-01/default-job7-0-computes: Source path '/mnt/a/x' does not have device reference"},
		{"lustre without reference", "lustre", func(c *dws.ClientMount) { c.Spec.Mounts[0].Device.DeviceReference = nil }, ErrFailed, ReasonMountNotFound, "does not have device reference"},
		{"unknown variable", "gfs2", func(c *dws.ClientMount) { c.Spec.Mounts[0].MountPath = "/mnt/a$NOT" }, ErrFailed, ReasonMountNotFound, "not found in list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cm := clientMount(node, "/mnt/a", c.typ)
			if c.change != nil {
				c.change(cm)
			}
			_, err := FindMount("/mnt/a/x", Mounts(cm), node)
			wantFault(t, err, c.kind, c.reason, c.text)
		})
	}
	_, err := FindMount("/mnt/a/x", nil, node)
	wantFault(t, err, ErrFailed, ReasonMountNotFound, "no client mounts found for node 'compute-01'")
}

// What is mounted wins over an equal path that is not.
func TestFindMountPrefersReady(t *testing.T) {
	gone := mountAt(node, "/mnt/a", "gfs2")
	gone.Ready, gone.Name = false, "a"
	here := mountAt(node, "/mnt/a", "gfs2")
	here.Name = "b"
	last := here
	last.Name = "c"
	for _, list := range [][]Mount{{gone, here, last}, {last, here, gone}} {
		if m, err := FindMount("/mnt/a/x", list, node); err != nil || m.Name != "b" {
			t.Errorf("%s %v", m.Name, err)
		}
	}
}

func TestMountPath(t *testing.T) {
	for p, want := range map[string]string{
		"/mnt/a": "/mnt/a", "/mnt/a/": "/mnt/a", "/mnt//a": "/mnt/a", "/mnt/./a": "/mnt/a",
		"/mnt/$JOBID/$DIRECTIVE_INDEX":   "/mnt/4711/0",
		"/mnt/$WORKFLOW_UID-$USERID":     "/mnt/" + wfUID + "-7",
		"/mnt/$GROUPID$GROUPID":          "/mnt/88",
		"/mnt/$USERIDS":                  "/mnt/7S",
		"/mnt/$MOUNT_PATH":               "",
		"/mnt/${JOBID}":                  "",
		"$JOBID":                         "",
		"relative":                       "",
		"":                               "",
		"/":                              "",
		"//":                             "",
		"/mnt/..":                        "",
		"/mnt/a/../b":                    "",
		"/mnt/a;b":                       "",
		"/mnt/a b":                       "",
		"/" + strings.Repeat("a/", 3000): "",
	} {
		cm := clientMount(node, p, "gfs2")
		cm.Spec.Mounts[0].UserID, cm.Spec.Mounts[0].GroupID = 7, 8
		if got := Mounts(cm)[0].Path; got != want {
			t.Errorf("%q: %q, want %q", p, got, want)
		}
	}
	// A label cannot smuggle in what a path must not have.
	for _, bad := range []string{"../..", "a b", "$USERID", ";", "-x", "x/y", strings.Repeat("a", 64)} {
		cm := clientMount(node, "/mnt/n$JOBID", "gfs2")
		cm.Labels[api.LabelJobID] = bad
		if m := Mounts(cm)[0]; m.Path != "/mnt/n" || m.JobID != "" {
			t.Errorf("%q: %q, job %q", bad, m.Path, m.JobID)
		}
	}
}

func TestOnRabbit(t *testing.T) {
	m := mountAt(node, "/mnt/c", "lustre")
	at := func(ns, path string, change ...func(*Mount)) Mount {
		s := mountAt(ns, path, "lustre")
		for _, f := range change {
			f(&s)
		}
		return s
	}
	busy := func(s *Mount) { s.Ready = false }
	other := func(s *Mount) { r := *s.Reference; r.Data++; s.Reference = &r }
	otherName := func(s *Mount) { r := *s.Reference; r.ObjectReference.Name = "job7-1"; s.Reference = &r }
	for _, c := range []struct {
		name    string
		servers []Mount
		want    string
		reason  Reason
		text    string
	}{
		{"own rabbit first", []Mount{at("rabbit-00", "/mnt/r0"), at(rabbit, "/mnt/r1"), at("rabbit-02", "/mnt/r2")}, "/mnt/r1/x/", "", ""},
		{"servers elsewhere", []Mount{at("rabbit-03", "/mnt/r3"), at("rabbit-02", "/mnt/r2")}, "/mnt/r2/x/", "", ""},
		{"one that is mounted first", []Mount{at(rabbit, "/mnt/r1", busy), at("rabbit-02", "/mnt/r2")}, "/mnt/r2/x/", "", ""},
		{"other allocation", []Mount{at(rabbit, "/mnt/r1", other), at(rabbit, "/mnt/r2")}, "/mnt/r2/x/", "", ""},
		{"nothing there", nil, "", ReasonMountNotFound, "no client mounts found for node 'rabbit-01'"},
		{"none of the same storage", []Mount{at(rabbit, "/mnt/r1", other), at(rabbit, "/mnt/r1", otherName), at(rabbit, "/mnt/r1", func(s *Mount) { s.Reference = nil }), at(rabbit, "/mnt/r1", func(s *Mount) { s.Type = "gfs2" })}, "",
			ReasonMountNotFound, "initiator 'compute-01' not found in list of client mounts residing on 'rabbit-01'"},
		{"path cannot be used", []Mount{at(rabbit, "/mnt/$X")}, "", ReasonMountNotFound, "not found in list"},
		{"none mounted", []Mount{at(rabbit, "/mnt/r1", busy)}, "", ReasonMountNotReady, "is not mounted on the rabbit"},
	} {
		got, err := OnRabbit("/mnt/c/x/", m, c.servers, node, rabbit)
		if c.reason == "" {
			if err != nil || got != c.want {
				t.Errorf("%s: %q %v", c.name, got, err)
			}
			continue
		}
		wantFault(t, err, ErrFailed, c.reason, c.text)
	}
	// A mount that source is not in is a mistake of the program; it leaks nothing.
	_, err := OnRabbit("/mnt/cc/x", m, []Mount{at(rabbit, "/mnt/r1")}, node, rabbit)
	wantFault(t, err, ErrFailed, ReasonMountNotFound, "not found")
}
