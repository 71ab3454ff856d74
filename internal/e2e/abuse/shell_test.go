package abuse

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// attacks are texts with an effect in a shell, in the options of a program, or in a path.
var attacks = []string{
	";touch x", "&touch x", "|touch x", "$(touch x)", "`touch x`", "\ntouch x\n", "\rtouch x", ">x", "<(touch x)", "a b", "a\tb", "'", "\"", "\\", "{a,b}", "*", "?",
	"[a]", "~", "#", "!x", "$UID", "${PATH}", "$HOSTFILE", "$SRC", "=x", "%1", "^a^b", "\u00a0x", "\u2003x", "\x00", "\x1b[2J", "--", " -- ", " --uid 0", " --gid=0 ", "-U0",
	" /bin/sh", " : sh", "a=b", ":~", "..", "/../x", "é", "数据", "dcp", "mpirun", "(id)", "&&id", "||id", "a;b", "$'x'", "$\"x\"", "2>x", "\xff",
}

// fields are all texts of a Create request, with their position in the message.
var fields = []struct {
	name   string
	number protowire.Number // 0: not in the message itself
	set    func(s *env, r *pb.DataMovementCreateRequest, text string)
	forms  []string // %s is the attack
}{
	{"source", 2, func(s *env, r *pb.DataMovementCreateRequest, text string) { r.Source = s.hers.Mount(0) + "/" + text }, []string{"%s", "a%s", "%sb"}},
	{"destination", 3, func(_ *env, r *pb.DataMovementCreateRequest, text string) { r.Destination = "/lus/global/" + text }, []string{"%s", "a%s", "%sb"}},
	{"dcpOptions", 5, func(_ *env, r *pb.DataMovementCreateRequest, text string) { r.DcpOptions = text }, []string{"%s", "-p%s", "-k 1MB%s", "--xattrs %s"}},
	{"mpirunOptions", 11, func(_ *env, r *pb.DataMovementCreateRequest, text string) { r.MpirunOptions = text }, []string{"%s", "-n 2%s", "--mca btl a%s", "--bind-to %s"}},
	{"profile", 10, func(_ *env, r *pb.DataMovementCreateRequest, text string) { r.Profile = text }, []string{"%s", "default%s"}},
	{"workflow.name", 0, func(_ *env, r *pb.DataMovementCreateRequest, text string) { r.Workflow.Name = text }, []string{"%s", "a%s"}},
	{"workflow.namespace", 0, func(_ *env, r *pb.DataMovementCreateRequest, text string) { r.Workflow.Namespace = text }, []string{"%s", "default%s"}},
}

// TestShell uses every attack in every text: it is refused with the name of the field, or bash
// parses the command line of the rabbit as intended.
func TestShell(t *testing.T) {
	t.Parallel()
	t.Run("allowed options", func(t *testing.T) { testShell(t, "list") })
	t.Run("any options", func(t *testing.T) { testShell(t, "any") })
}

// testShell runs the test with one policy for options. With "any" many more options are
// accepted, so that the shell parses them.
func testShell(t *testing.T, policy string) {
	t.Parallel()
	s := newEnv(t, "[limits]\ncreate_burst = 5000\n[kubernetes]\nqps = 1000\nburst = 1000\n[options]\npolicy = \""+policy+"\"\n")
	bash := s.newShell(t)
	refused, passed := map[string]int{}, map[string]int{}
	for _, f := range fields {
		if policy == "any" && !strings.HasSuffix(f.name, "Options") {
			continue // covered by the other test
		}
		for _, attack := range attacks {
			for _, form := range f.forms {
				text := fmt.Sprintf(form, attack)
				r := s.hers.Request("/x", "/alice/x")
				f.set(s, r, text)
				if uid := s.attempt(t, f.name, text, r, ""); uid == "" {
					refused[f.name]++
				} else {
					passed[f.name]++
					bash.check(t, s.Movement(uid), r)
				}
			}
		}
	}
	if policy == "any" {
		t.Logf("refused %v, accepted %v", refused, passed)
		if passed["dcpOptions"] < 10 || passed["mpirunOptions"] < 10 {
			t.Errorf("too few options were accepted: %v", passed)
		}
		s.Stop(s.daemon)
		return
	}
	for i, attack := range attacks {
		for _, form := range []string{"%s", "a%s"} {
			key := fmt.Sprintf(form, attack)
			r := s.hers.Request(fmt.Sprintf("/key/%d", i), "/alice/x")
			if uid := s.attempt(t, "request_key", key, r, key); uid == "" {
				refused["request_key"]++
			} else {
				passed["request_key"]++
				bash.check(t, s.Movement(uid), r)
			}
		}
	}
	t.Logf("refused %v, accepted %v", refused, passed)
	for _, name := range []string{"source", "destination", "dcpOptions", "mpirunOptions", "profile", "workflow.name", "workflow.namespace", "request_key"} {
		if refused[name] < 30 {
			t.Errorf("%s: only %d attacks were refused", name, refused[name])
		}
	}
	if passed["source"] < 5 || passed["destination"] < 5 || passed["request_key"] < 3 {
		t.Errorf("too few texts were accepted, so the test is meaningless: %v", passed)
	}
	s.names(t)
	s.onlyNames(t)
	s.Stop(s.daemon)
}

var callRefused = map[codes.Code]bool{
	codes.InvalidArgument: true,
	codes.Internal:        true, // from gRPC: texts that are not UTF-8, and invalid metadata
}

// attempt calls Create with the attack in one field. It returns the uid, or "" if the attack
// was refused as expected.
func (s *env) attempt(t *testing.T, field, text string, r *pb.DataMovementCreateRequest, key string) string {
	t.Helper()
	body := encode(r)
	a := s.alice.wire(createMethod, body, key)
	code := answer{result: a}.code(t)
	var c pb.DataMovementCreateResponse
	if err := proto.Unmarshal(a.Body, &c); err != nil {
		t.Fatal(err)
	}
	switch {
	case code == codes.OK && c.Status == pb.DataMovementCreateResponse_SUCCESS:
		return c.Uid
	case code == codes.OK && c.Status == pb.DataMovementCreateResponse_INVALID:
		if !strings.Contains(c.Message, field) {
			t.Errorf("%s %q: the message names another field: %s", field, text, c.Message)
		}
		if strings.ContainsFunc(c.Message, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%s %q: control characters in the response %q", field, text, c.Message)
		}
	case code == codes.OK && plainName.MatchString(text): // a valid name of a missing object
	case !callRefused[code]:
		t.Errorf("%s %q: %v %v", field, text, code, &c)
	}
	return ""
}

var plainName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)

// encode marshals a request whose texts need not be UTF-8.
func encode(r *pb.DataMovementCreateRequest) []byte {
	if body, err := proto.Marshal(r); err == nil {
		return body
	}
	text := func(b []byte, n protowire.Number, s string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
	}
	workflow := text(text(nil, 1, r.Workflow.Name), 2, r.Workflow.Namespace)
	body := text(nil, 1, string(workflow))
	for n, s := range map[protowire.Number]string{2: r.Source, 3: r.Destination, 5: r.DcpOptions, 10: r.Profile, 11: r.MpirunOptions} {
		body = text(body, n, s)
	}
	return body
}

// names uses the attacks as names of movements.
func (s *env) names(t *testing.T) {
	for _, attack := range attacks {
		for _, uid := range []string{attack, "nnf-dm-node-" + attack, "../../" + attack} {
			for _, q := range questions[:4] { // version 1 can return INVALID
				m := q.body("UID", s.hers.Ref())
				body, err := proto.Marshal(m)
				if err != nil {
					t.Fatal(err)
				}
				// The name is field 2 in all of them.
				at := strings.Index(string(body), "UID")
				body = slices.Concat(body[:at-1], []byte{byte(len(uid))}, []byte(uid), body[at+3:])
				a := answer{result: s.alice.wire(q.method, body, "")}
				if code := a.code(t); code != codes.OK && !callRefused[code] {
					t.Errorf("%s %q: %v", q.method, uid, code)
				}
				if strings.ContainsFunc(string(a.Body), func(r rune) bool { return r == 0x1b || r == '\r' }) {
					t.Errorf("%s %q: control characters in the response %q", q.method, uid, a.Body)
				}
			}
		}
	}
}

var plainPath = regexp.MustCompile(`^/[a-z0-9./-]+$`)

// onlyNames fails the test if a request to the API server contains an invalid name.
func (s *env) onlyNames(t *testing.T) {
	for _, r := range s.Proxy.Requests() {
		if !plainPath.MatchString(r.Path) || strings.Contains(r.Path, "..") || strings.ContainsAny(r.Query, ";`$") {
			t.Errorf("request to the API server: %q?%q", r.Path, r.Query)
		}
	}
}

// shell runs command lines in bash with fakes of mpirun and dcp that print their arguments.
type shell struct {
	dir, work string
	command   string // of the profile
}

func (s *env) newShell(t *testing.T) *shell {
	t.Helper()
	p, err := s.Cluster.Get(t.Context(), "NnfDataMovementProfile", "nnf-system", "default")
	if err != nil {
		t.Fatal(err)
	}
	sh := &shell{dir: t.TempDir(), work: t.TempDir(), command: p.String("data", "command")}
	for _, name := range []string{"mpirun", "dcp"} {
		if err := executable.Write(filepath.Join(sh.dir, name), []byte("#!/bin/bash\nprintf '%s\\0' \"${0##*/}\" \"$@\"\n")); err != nil {
			t.Fatal(err)
		}
	}
	// The shell must run an injected command, or the test is meaningless.
	o := lab.Object{"spec": map[string]any{
		"source": map[string]any{"path": "/a;printf 'x\\0'"}, "destination": map[string]any{"path": "/b"}, "userConfig": map[string]any{},
	}}
	if got, want := sh.run(t, sh.line(o)), sh.meant(o); slices.Equal(got, want) {
		t.Fatalf("bash did not run the injected command: %q", got)
	}
	return sh
}

// line returns the command line that the rabbit builds from an object: by text replacement,
// without quoting.
func (sh *shell) line(o lab.Object) string {
	line := sh.command
	for _, r := range [][2]string{
		{"$HOSTFILE", "/tmp/hostfile"}, {"$UID", "1001"}, {"$GID", "1001"},
		{"$SRC", o.String("spec", "source", "path")}, {"$DEST", o.String("spec", "destination", "path")},
	} {
		line = strings.ReplaceAll(line, r[0], r[1])
	}
	for _, r := range [][2]string{{"mpirun", o.String("spec", "userConfig", "mpirunOptions")}, {"dcp", o.String("spec", "userConfig", "dcpOptions")}} {
		if r[1] != "" {
			line = strings.Replace(line, r[0], r[0]+" "+r[1], 1)
		}
	}
	return line
}

// meant returns the arguments that mpirun should get.
func (sh *shell) meant(o lab.Object) []string {
	return slices.Concat([]string{"mpirun"}, strings.Fields(o.String("spec", "userConfig", "mpirunOptions")),
		[]string{"--allow-run-as-root", "--hostfile", "/tmp/hostfile", "dcp"}, strings.Fields(o.String("spec", "userConfig", "dcpOptions")),
		[]string{"--progress", "1", "--uid", "1001", "--gid", "1001", o.String("spec", "source", "path"), o.String("spec", "destination", "path")})
}

func (sh *shell) run(t *testing.T, line string) []string {
	t.Helper()
	cmd := exec.Command("bash", "-c", line)
	cmd.Dir = sh.work
	cmd.Env = []string{"PATH=" + sh.dir + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=/root"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%q: %v\n%q", line, err, out)
	}
	if files, _ := os.ReadDir(sh.work); len(files) > 0 {
		t.Fatalf("%q created the file %s", line, files[0].Name())
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// check runs the command line that the rabbit would run for an object.
func (sh *shell) check(t *testing.T, o lab.Object, r *pb.DataMovementCreateRequest) {
	t.Helper()
	if got, want := sh.run(t, sh.line(o)), sh.meant(o); !slices.Equal(got, want) {
		t.Errorf("%v\ngot  %q\nwant %q", r, got, want)
	}
	if o.At("spec", "userId") != float64(alice) || o.At("spec", "groupId") != float64(alice) {
		t.Errorf("%v: copies as %v:%v", r, o.At("spec", "userId"), o.At("spec", "groupId"))
	}
	if suffix := "/" + strings.Join(strings.Split(r.Source, "/")[4:], "/"); !strings.HasSuffix(o.String("spec", "source", "path"), suffix) {
		t.Errorf("source %q became %q", r.Source, o.String("spec", "source", "path"))
	}
	if o.String("spec", "destination", "path") != r.Destination {
		t.Errorf("destination %q became %q", r.Destination, o.String("spec", "destination", "path"))
	}
}
