package datamovement

import (
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// syntax has all characters with a meaning for a shell.
const syntax = ";&|$`'\"\\[](){}<>*?~#!"

// inert reports whether a shell reads s as a single word without special characters.
func inert(s string) bool {
	return s != "" && utf8.ValidString(s) && !strings.ContainsAny(s, syntax) && strings.IndexFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) && !unicode.IsMark(r) }) < 0
}

// FuzzPath: an accepted path is absolute and a single word. The result is clean and
// equivalent, and cleaning it again does not change it.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/a/b", "/a/", "/", "/a//b", "/a/./b", "/a/.", "/a/../b", "/ü", "/a b", "a", "", "/a\xff", "/a\u00a0"} {
		f.Add(s, "/mnt/nnf/U-0")
	}
	f.Add("/mnt/nnf/U-01", "/mnt/nnf/U-0")
	f.Add("/mnt/nnf/U-0/x/", "/mnt/nnf/$JOBID")
	f.Add("/lus/g/x", "/lus/g/")
	grammar := compile(options(f, OptionsList).Grammars().Path)
	f.Fuzz(func(t *testing.T, p, root string) {
		got, err := parsePath("source", p)
		grammar.same(t, p, err)
		if err == nil {
			slash := strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.")
			if !inert(p) || p[0] != '/' || path.Clean(p) != got.Path || len(p) > maxPath || got.Slash != slash || slices.Contains(strings.Split(p, "/"), "..") {
				t.Errorf("%q is accepted as %+v", p, got)
			}
			if again, err := parsePath("source", got.String()); err != nil || again.String() != got.String() {
				t.Errorf("%q becomes %q, which becomes %q, %v", p, got, again, err)
			}
		} else if !errors.Is(err, ErrInvalid) || strings.IndexFunc(err.Error(), unicode.IsControl) >= 0 || len(err.Error()) > 1000 {
			t.Errorf("%q: %q", p, err)
		}
		cm := clientMount(node, root, dws.TypeGFS2)
		m := Mounts(cm)[0]
		if m.Path != "" && (!inert(m.Path) || m.Path != path.Clean(m.Path) || m.Path == "/" || m.Path[0] != '/') {
			t.Errorf("mount %q becomes %q", root, m.Path)
		}
		at := "/mnt/nnf/U-0/rabbit-01-3"
		if _, out, err := mapSource(p, []Mount{m}, []Mount{mountAt(rabbit, at, dws.TypeGFS2)}); err == nil {
			rest, ok := strings.CutPrefix(path.Clean(out), at)
			if !ok || rest != "" && rest[0] != '/' || !inert(out) || m.Path+rest != got.Path || strings.HasSuffix(out, "/") != got.Slash {
				t.Errorf("%q in mount %q becomes %q", p, m.Path, out)
			}
		}
		systems := []lus.LustreFileSystem{system("g", root)}
		if ref, err := matchDestination(p, systems); err == nil {
			if ref.Name != "g" || !strings.HasPrefix(got.Path+"/", path.Clean(root)+"/") {
				t.Errorf("%q is found in %q", p, root)
			}
		}
	})
}

// FuzzOptions: accepted options are words, each an option or the value of one, and none
// ends the options or selects the identity.
func FuzzOptions(f *testing.F) {
	for _, s := range attacks {
		f.Add(s)
	}
	for _, s := range []string{"-p", "-psk 4MB", "--chunksize=4MB -v", "--mca btl ^tcp", "-np 4 --map-by ppr:2:node", "--uid 0", "-U0", "--", "--my-value /x", "-zpy1"} {
		f.Add(s)
	}
	list, any := options(f, OptionsList), options(f, OptionsAny)
	dcp, mpirun := compile(list.Grammars().DCPOptions), compile(list.Grammars().MPIRunOptions)
	f.Fuzz(func(t *testing.T, s string) {
		// What the grammar allows passes the check.
		for g, err := range map[compiled]error{dcp: list.CheckDCP(s), mpirun: list.CheckMPIRun(s)} {
			if err != nil && g.allows(s) {
				g.same(t, s, err)
			}
		}
		for _, o := range []*Options{list, any} {
			for name, err := range map[string]error{"dcp": o.CheckDCP(s), "mpirun": o.CheckMPIRun(s)} {
				if err != nil {
					if !errors.Is(err, ErrInvalid) || strings.IndexFunc(err.Error(), unicode.IsControl) >= 0 || len(err.Error()) > 4000 {
						t.Errorf("%q: %q", s, err)
					}
					continue
				}
				options := s == ""
				for w := range strings.SplitSeq(s, " ") {
					switch {
					case w == "":
						continue
					case !inert(w), strings.Trim(w, "-") == "", strings.Contains(w, "dcp"), strings.Contains(w, "mpirun"),
						name == "dcp" && (w == "--uid" || w == "--gid" || strings.HasPrefix(w, "--uid=") || strings.HasPrefix(w, "--gid=") || strings.HasPrefix(w, "-U") || strings.HasPrefix(w, "-G")):
						t.Errorf("%s accepts %q with %q", name, s, w)
					case o == list && !options && w[0] != '-':
						t.Errorf("%s accepts %q, which starts with a value", name, s)
					}
					options = true
				}
			}
		}
	})
}

// FuzzRequestToObject: for any request and any objects of the API server, there is no
// panic, and a created object has the fields that identify its owner.
func FuzzRequestToObject(f *testing.F) {
	seed := func(p *Parts, cm *dws.ClientMount) {
		r, _ := json.Marshal(p.Request)
		w, _ := json.Marshal(p.Workflow)
		m, _ := json.Marshal(cm)
		f.Add(r, w, m, uint32(1001), uint32(100))
	}
	seed(parts("gfs2"), clientMount(node, mount0, "gfs2"))
	seed(parts("lustre"), clientMount(node, mount0, "lustre"))
	p := parts("lustre")
	p.Request.Key, p.Request.DCPOptions, p.Request.Profile = "k", "-p", "fast"
	seed(p, clientMount(node, "/mnt/nnf/$WORKFLOW_UID-$DIRECTIVE_INDEX", "lustre"))
	f.Add([]byte(`{}`), []byte(`{}`), []byte(`{"spec":{"mounts":[{}]}}`), uint32(0), uint32(0))
	o := options(f, OptionsList)
	f.Fuzz(func(t *testing.T, request, wf, mounts []byte, uid, gid uint32) {
		p := Parts{Node: node, Rabbit: rabbit, Workflow: &dws.Workflow{}, Profile: profile("default")}
		var cm dws.ClientMount
		if json.Unmarshal(request, &p.Request) != nil || json.Unmarshal(wf, p.Workflow) != nil || json.Unmarshal(mounts, &cm) != nil {
			return
		}
		caller := Caller{UID: uid, GID: gid}
		if p.Request.Check(o) != nil || CheckWorkflow(p.Workflow) != nil {
			return
		}
		var v Verdict
		if p.Identity, v = usual.CreateFor(caller, p.Workflow); !v.Allowed() {
			return
		}
		var err error
		if p.Mount, err = FindMount(&p.Request, Mounts(&cm), node); err != nil {
			return
		}
		server := p.Mount
		server.Namespace, server.Path = rabbit, "/mnt/r"
		if p.Source, _, err = OnRabbit(&p.Request, p.Mount, []Mount{server}, node, rabbit); err != nil {
			return
		}
		dm, err := Object(&p)
		if err != nil {
			return
		}
		checkObject(t, dm, caller, p.Workflow)
	})
}

func checkObject(t *testing.T, dm *nnf.DataMovement, caller Caller, wf *dws.Workflow) {
	t.Helper()
	s := &dm.Spec
	if s.UserID != wf.Spec.UserID || s.GroupID != wf.Spec.GroupID || s.UserID == 0 || s.GroupID == 0 || caller.UID != 0 && s.UserID != int64(caller.UID) {
		t.Errorf("user %d:%d copies as %d:%d for %d:%d", caller.UID, caller.GID, s.UserID, s.GroupID, wf.Spec.UserID, wf.Spec.GroupID)
	}
	for _, text := range []string{s.Source.Path, s.Destination.Path} {
		if !inert(text) || text[0] != '/' {
			t.Errorf("path %q", text)
		}
	}
	if s.Source.Path != "/mnt/r" && !strings.HasPrefix(s.Source.Path, "/mnt/r/") {
		t.Errorf("source %q", s.Source.Path)
	}
	for key, value := range dm.Labels {
		if key != "" && value != "" && strings.HasPrefix(key, "nnf") && !labelValue(value) {
			t.Errorf("label %s=%q", key, value)
		}
	}
	if (dm.Name == "") == (dm.GenerateName == "") || s.Cancel {
		t.Errorf("%+v", dm.ObjectMeta)
	}
	dm.Name = "n"
	// The creator may access it, if the workflow is valid.
	if wf.Name != "" && wf.Namespace != "" && wf.UID != "" {
		if v := usual.Movement(caller, dm, WorkflowRef{wf.Name, wf.Namespace}); !v.Allowed() {
			t.Errorf("the creator may not access it: %s", v.Reason)
		}
	}
	if _, err := json.Marshal(dm); err != nil {
		t.Error(err)
	}
	if a := StatusV1(dm); a.State != v1.DataMovementStatusResponse_PENDING || a.Status != v1.DataMovementStatusResponse_UNKNOWN_STATUS {
		t.Errorf("%+v", a)
	}
}
