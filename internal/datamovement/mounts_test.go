package datamovement

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
)

// The path below the compute's mount is appended to the path of the rabbit's mount.
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
		m, got, err := mapSource(source, []Mount{mountAt(node, c, "gfs2")}, []Mount{mountAt(rabbit, r, "gfs2")})
		if err != nil || got != want || m.Path != c {
			t.Errorf("%s: %s, mount %s, %v; want %s", source, got, m.Path, err, want)
		}
	}
	for _, x := range []struct {
		source string
		kind   error
		reason v2.ErrorReason
		text   string
	}{
		{"/mnt/nnf/U-01/x", ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "source path '/mnt/nnf/U-01/x' not found in list of client mounts"},
		{"/mnt/nnf", ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "not found in list"},
		{"/etc/shadow", ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "not found in list"},
		{c + "/../../etc/x", ErrInvalid, v2.ErrorReason_INVALID_FIELD, ".."},
		{c + "//../x", ErrInvalid, v2.ErrorReason_INVALID_FIELD, ".."},
		{"x", ErrInvalid, v2.ErrorReason_INVALID_FIELD, "absolute"},
		{"", ErrInvalid, v2.ErrorReason_INVALID_FIELD, "missing"},
		{c + "/" + strings.Repeat("12345678/", 453), ErrInvalid, v2.ErrorReason_INVALID_FIELD, "longer than 4095 bytes on the rabbit"},
	} {
		_, p, err := mapSource(x.source, []Mount{mountAt(node, c, "gfs2")}, []Mount{mountAt(rabbit, r, "gfs2")})
		wantFault(t, err, x.kind, x.reason, x.text)
		if p != "" {
			t.Errorf("%s: path %q together with an error", x.source, p)
		}
	}
}

// The longest match by components wins, whatever the order of the list.
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
			if m, err := findMount(source, list); err != nil || m.Path != want {
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
		reason v2.ErrorReason
		text   string
	}{
		{"xfs", "xfs", nil, ErrInvalid, v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, "filesystem not supported: 'xfs'"},
		{"raw", "none", nil, ErrInvalid, v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, "filesystem not supported: 'none'"},
		{"hostile type", "x'\n", nil, ErrInvalid, v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, `filesystem not supported: 'x'\n'`},
		{"being unmounted", "gfs2", func(c *dws.ClientMount) { c.Spec.DesiredState = dws.Unmounted }, ErrFailed, v2.ErrorReason_MOUNT_NOT_READY, "is not mounted"},
		{"not ready", "gfs2", func(c *dws.ClientMount) { c.Status.Mounts[0].Ready = false }, ErrFailed, v2.ErrorReason_MOUNT_NOT_READY, "is not mounted"},
		{"ready to be unmounted", "gfs2", func(c *dws.ClientMount) { c.Status.Mounts[0].State = dws.Unmounted }, ErrFailed, v2.ErrorReason_MOUNT_NOT_READY, "is not mounted"},
		{"no status yet", "gfs2", func(c *dws.ClientMount) { c.Status.Mounts = nil }, ErrFailed, v2.ErrorReason_MOUNT_NOT_READY, "is not mounted"},
		{"being deleted", "gfs2", func(c *dws.ClientMount) { c.DeletionTimestamp = &now }, ErrFailed, v2.ErrorReason_MOUNT_NOT_READY, "is not mounted"},
		{"gfs2 without reference", "gfs2", func(c *dws.ClientMount) { c.Spec.Mounts[0].Device.DeviceReference = nil }, ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND,
			"ClientMount compute-01/default-job7-0-computes: Source path '/mnt/a/x' does not have device reference"},
		{"lustre without reference", "lustre", func(c *dws.ClientMount) { c.Spec.Mounts[0].Device.DeviceReference = nil }, ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "does not have device reference"},
		{"unknown variable", "gfs2", func(c *dws.ClientMount) { c.Spec.Mounts[0].MountPath = "/mnt/a$NOT" }, ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "not found in list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cm := clientMount(node, "/mnt/a", c.typ)
			if c.change != nil {
				c.change(cm)
			}
			_, err := findMount("/mnt/a/x", Mounts(cm))
			wantFault(t, err, c.kind, c.reason, c.text)
		})
	}
	_, err := findMount("/mnt/a/x", nil)
	wantFault(t, err, ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "no client mounts found for node 'compute-01'")
}

// A mounted entry takes precedence over one with the same path that is not mounted.
func TestFindMountPrefersReady(t *testing.T) {
	gone := mountAt(node, "/mnt/a", "gfs2")
	gone.Ready, gone.Name = false, "a"
	here := mountAt(node, "/mnt/a", "gfs2")
	here.Name = "b"
	last := here
	last.Name = "c"
	for _, list := range [][]Mount{{gone, here, last}, {last, here, gone}} {
		if m, err := findMount("/mnt/a/x", list); err != nil || m.Name != "b" {
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
	// A label cannot insert invalid characters into a path.
	for _, bad := range []string{"../..", "a b", "$USERID", ";", "-x", "x/y", strings.Repeat("a", 64)} {
		cm := clientMount(node, "/mnt/n$JOBID", "gfs2")
		cm.Labels[api.LabelJobID] = bad
		if m := Mounts(cm)[0]; m.Path != "/mnt/n" || m.JobID != "" {
			t.Errorf("%q: %q, job %q", bad, m.Path, m.JobID)
		}
	}
}

func TestOnRabbit(t *testing.T) {
	r, err := parsed("/mnt/c/x/", "-")
	if err != nil {
		t.Fatal(err)
	}
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
		reason  v2.ErrorReason
		text    string
	}{
		{"own rabbit first", []Mount{at("rabbit-00", "/mnt/r0"), at(rabbit, "/mnt/r1"), at("rabbit-02", "/mnt/r2")}, "/mnt/r1/x/", 0, ""},
		{"servers elsewhere", []Mount{at("rabbit-03", "/mnt/r3"), at("rabbit-02", "/mnt/r2")}, "/mnt/r2/x/", 0, ""},
		{"ready mount first", []Mount{at(rabbit, "/mnt/r1", busy), at("rabbit-02", "/mnt/r2")}, "/mnt/r2/x/", 0, ""},
		{"other allocation", []Mount{at(rabbit, "/mnt/r1", other), at(rabbit, "/mnt/r2")}, "/mnt/r2/x/", 0, ""},
		{"no entries", nil, "", v2.ErrorReason_MOUNT_NOT_FOUND, "no client mounts found for node 'rabbit-01'"},
		{"none of the same storage", []Mount{at(rabbit, "/mnt/r1", other), at(rabbit, "/mnt/r1", otherName), at(rabbit, "/mnt/r1", func(s *Mount) { s.Reference = nil }), at(rabbit, "/mnt/r1", func(s *Mount) { s.Type = "gfs2" })}, "",
			v2.ErrorReason_MOUNT_NOT_FOUND, "initiator 'compute-01' not found in list of client mounts residing on 'rabbit-01'"},
		{"unusable path", []Mount{at(rabbit, "/mnt/$X")}, "", v2.ErrorReason_MOUNT_NOT_FOUND, "not found in list"},
		{"none mounted", []Mount{at(rabbit, "/mnt/r1", busy)}, "", v2.ErrorReason_MOUNT_NOT_READY, "is not mounted on the rabbit"},
	} {
		got, _, err := OnRabbit(r, m, c.servers, node, rabbit)
		if c.reason == 0 {
			if err != nil || got != c.want {
				t.Errorf("%s: %q %v", c.name, got, err)
			}
			continue
		}
		wantFault(t, err, ErrFailed, c.reason, c.text)
	}
	// A mount that does not contain the source is a bug of the caller; it does not reveal a
	// path.
	elsewhere, _ := parsed("/mnt/cc/x", "-")
	_, _, err = OnRabbit(elsewhere, m, []Mount{at(rabbit, "/mnt/r1")}, node, rabbit)
	wantFault(t, err, ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "not found")
}

func system(name, root string) lus.LustreFileSystem {
	return lus.LustreFileSystem{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Spec: lus.LustreFileSystemSpec{MountRoot: root}}
}

func matchDestination(dest string, systems []lus.LustreFileSystem) (dws.ObjectReference, error) {
	r, err := parsed("-", dest)
	if err != nil {
		return dws.ObjectReference{}, err
	}
	return MatchDestination(r, systems)
}

func TestMatchDestination(t *testing.T) {
	systems := []lus.LustreFileSystem{
		system("root", "/"), system("empty", ""), system("relative", "lus"), system("hostile", "/lus/$(id)"), system("up", "/lus/x/.."),
		system("a", "/lus/a"), system("ab", "/lus/ab/"), system("inner", "/lus/a/inner"), system("twin", "/lus/a/inner/"),
	}
	for dest, want := range map[string]string{
		"/lus/a": "a", "/lus/a/": "a", "/lus/a/x": "a", "/lus/ab/x": "ab", "/lus/a/inner/x": "inner", "/lus/a/inner": "inner", "/lus/a/innerx": "a",
	} {
		for range 2 { // the order of the list does not matter
			ref, err := matchDestination(dest, systems)
			if err != nil || ref.Name != want || ref.Kind != "LustreFileSystem" || ref.Namespace != "default" {
				t.Errorf("%s: %+v %v, want %s", dest, ref, err, want)
			}
			for i, j := 0, len(systems)-1; i < j; i, j = i+1, j-1 {
				systems[i], systems[j] = systems[j], systems[i]
			}
		}
	}
	for _, c := range []struct {
		dest   string
		kind   error
		reason v2.ErrorReason
		text   string
	}{
		{"/lus/b/x", ErrFailed, v2.ErrorReason_DESTINATION_NOT_FOUND, "unable to find a LustreFileSystem resource matching /lus/b/x"},
		{"/lus", ErrFailed, v2.ErrorReason_DESTINATION_NOT_FOUND, "unable to find"},
		{"/etc/cron.d/x", ErrFailed, v2.ErrorReason_DESTINATION_NOT_FOUND, "unable to find"},
		{"lus/a", ErrInvalid, v2.ErrorReason_INVALID_FIELD, "destination \"lus/a\" is refused: it must be an absolute path"},
		{"/lus/a/../../etc", ErrInvalid, v2.ErrorReason_INVALID_FIELD, ".."},
		{"/lus/a/x y", ErrInvalid, v2.ErrorReason_INVALID_FIELD, "are allowed, because"},
		{"", ErrInvalid, v2.ErrorReason_INVALID_FIELD, "destination is missing"},
	} {
		_, err := matchDestination(c.dest, systems)
		wantFault(t, err, c.kind, c.reason, c.text)
	}
	_, err := matchDestination("/lus/a", nil)
	wantFault(t, err, ErrFailed, v2.ErrorReason_DESTINATION_NOT_FOUND, "no LustreFileSystem resources found")
}
