package rabbit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseRule(t *testing.T) {
	got, err := ParseRule("  */x hold=true delay=2s minor=3 invalid=no rate=64k exit=7 die=1s storm=9 ")
	want := Rule{"*/x", Faults{true, 2 * time.Second, 3, "no", 64 << 10, 7, time.Second, 9}}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for line, hint := range map[string]string{
		"":                 "expected PATTERN",
		"*":                "expected PATTERN",
		"delay=2s hold":    "expected PATTERN",
		"* fly=1":          "unknown name",
		"* delay":          "delay",
		"* rate=0":         "greater than 0",
		"* rate=-5M":       "greater than 0",
		"* rate=9999999M9": "rate=9999999M9",
		"* exit=256":       "0 to 255",
		"* storm=100000":   "0 to 1000",
	} {
		if rule, err := ParseRule(line); err == nil || !strings.Contains(err.Error(), hint) {
			t.Errorf("%q: %+v, %v; want %q", line, rule, err, hint)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, test := range []struct {
		pattern, text string
		want          bool
	}{
		{"*", "", true}, {"*", "/a/b", true}, {"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"*/x", "ns/x", true},
		{"*/x", "ns/xy", false}, {"a*b*c", "a1b2c", true}, {"a*b*c", "a1c", false}, {"aa*aa", "aaa", false}, {"**", "x", true}, {"", "", true},
	} {
		if got := glob(test.pattern, test.text); got != test.want {
			t.Errorf("glob(%q, %q) = %v", test.pattern, test.text, got)
		}
	}
}

func TestFaults(t *testing.T) {
	var logged []string
	r := &rabbit{Config: Config{Dir: t.TempDir(), Log: func(string, ...any) { logged = append(logged, "") },
		Faults: []Rule{{"*", Faults{Delay: time.Hour, Exit: 1}}}}}
	m := &movement{}
	m.Namespace, m.Name, m.Spec.Source.Path = "ns", "name", "/mnt/a"
	for _, test := range []struct {
		file   string
		want   Faults
		logged int
	}{
		{"", Faults{Delay: time.Hour, Exit: 1}, 0},
		{"ns/name delay=1s # comes first\n\n# nothing\n", Faults{Delay: time.Second, Exit: 1}, 0},
		{"/mnt/* exit=2\nns/other exit=3\nns/name exit=4 minor=1\n", Faults{Delay: time.Hour, Exit: 2, Minor: 1}, 0},
		{"ns/name exit=9\nwrong\n", Faults{Delay: time.Hour, Exit: 9}, 1},
	} {
		if err := os.WriteFile(filepath.Join(r.Dir, controlFile), []byte(test.file), 0o600); err != nil {
			t.Fatal(err)
		}
		logged = nil
		if got := r.faults(m); got != test.want || len(logged) != test.logged {
			t.Errorf("%q: %+v, %d lines; want %+v, %d", test.file, got, len(logged), test.want, test.logged)
		}
	}
}

func TestMapping(t *testing.T) {
	var maps []Mapping
	for _, text := range []string{"/mnt/nnf=/tmp/all", "/mnt/nnf/U-0/=/tmp/u0/", "/=/root"} {
		m, err := ParseMapping(text)
		if err != nil {
			t.Fatal(err)
		}
		maps = append(maps, m)
	}
	for path, want := range map[string]string{
		"/mnt/nnf/U-0/a": "/tmp/u0/a", "/mnt/nnf/U-0": "/tmp/u0", "/mnt/nnf/U-0/": "/tmp/u0/", "/mnt/nnf/U-01": "/tmp/all/U-01",
		"/mnt/nnf/U-0/../x; y": "/tmp/u0/../x; y", "/etc/x": "/root/etc/x", "relative": "relative", "": "/root",
	} {
		if got := mapped(path, maps); got != want {
			t.Errorf("%q becomes %q, want %q", path, got, want)
		}
	}
	for _, text := range []string{"", "/a", "a=/b", "/a=b"} {
		if _, err := ParseMapping(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestCommandLine(t *testing.T) {
	ids := strings.NewReplacer("$UID", "1001", "$GID", "100")
	for _, test := range []struct {
		command string
		user    userConfig
		want    string
	}{
		{"mpirun --hostfile $HOSTFILE dcp --uid $UID --gid $GID $SRC $DEST", userConfig{}, "mpirun --hostfile /h dcp --uid 1001 --gid 100 /s;x /d $(y)"},
		{"mpirun dcp $SRC", userConfig{MpirunOptions: "-a -b", DcpOptions: "-c"}, "mpirun -a -b dcp -c /s;x"},
		{"mpirun mpirun dcp dcp", userConfig{MpirunOptions: "-a", DcpOptions: "-c"}, "mpirun -a mpirun dcp -c dcp"},
		{"cp $SRC", userConfig{MpirunOptions: "-a", DcpOptions: "-c"}, "cp /s;x"},
		{"dcpx", userConfig{DcpOptions: "|"}, "dcp |x"},
	} {
		if got := commandLine(test.command, test.user, ids, "/h", "/s;x", "/d $(y)"); got != test.want {
			t.Errorf("%q, %+v: %q, want %q", test.command, test.user, got, test.want)
		}
	}
}

func TestHosts(t *testing.T) {
	n := func(n int) *int { return &n }
	for _, test := range []struct {
		profile profile
		user    userConfig
		want    string
	}{
		{profile{Slots: 8}, userConfig{}, "localhost slots=8\n"},
		{profile{Slots: 8, MaxSlots: 9}, userConfig{Slots: n(2)}, "localhost slots=2 max_slots=9\n"},
		{profile{Slots: 8, MaxSlots: 9}, userConfig{Slots: n(0), MaxSlots: n(0)}, "localhost\n"},
	} {
		if got := hosts(test.profile, test.user); got != test.want {
			t.Errorf("%+v, %+v: %q", test.profile, test.user, got)
		}
	}
}

func TestIndexDirectory(t *testing.T) {
	w := &worker{crew: &crew{rabbit: &rabbit{Config: Config{Namespaces: []string{"rabbit-01", SystemNamespace}}}}, ns: "rabbit-01"}
	for path, want := range map[string]string{
		"/mnt/nnf/U-0/rabbit-01-3/a": "rabbit-01-3", "/mnt/nnf/U-0/rabbit-01-3/": "rabbit-01-3", "/mnt/nnf/U-0/rabbit-01-3": "",
		"/mnt/nnf/U-0/rabbit-01-x/a": "", "/mnt/nnf/U-0/a": "", "/mnt/nnf/U-0/rabbit-011-3/a": "",
	} {
		m := &movement{}
		m.Spec.Source.Path = path
		if got := w.indexDirectory(m); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	w.ns = SystemNamespace
	m := &movement{}
	m.Spec.Source.Path = "/mnt/nnf/U-0/rabbit-01-3/a"
	if got := w.indexDirectory(m); got != "" {
		t.Errorf("a Lustre source has %q", got)
	}
}

func TestProgress(t *testing.T) {
	out := &tail{}
	if p := out.progress(); p.percent != -1 || !p.when.IsZero() {
		t.Errorf("without output: %+v", p)
	}
	out.Write([]byte("start\nCopied 1.000 GiB (25%) in 1.001 secs (1.0 GiB/s) 3 secs left ...\nCopied 2 GiB (50%) in 2"))
	if p := out.progress(); p.percent != 50 || p.last != "Copied 2 GiB (50%) in 2" {
		t.Errorf("%+v", p)
	}
	out.Write([]byte("\nnoise\nSeconds: 5.1\nItems: 3\n  Directories: 1\n  Files: 99999999999\nRate: \xff/s\n"))
	status := map[string]any{"commandStatus": map[string]any{"command": "c"}}
	out.progress().write(status, 1500*time.Millisecond+7)
	got := status["commandStatus"].(map[string]any)
	for name, want := range map[string]any{"command": "c", "progress": int64(50), "elapsedTime": "1.5s", "seconds": "5.1", "items": int64(3),
		"directories": int64(1), "files": nil, "rate": "\uFFFD/s", "lastMessage": "Copied 2 GiB (50%) in 2"} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	out.Write([]byte(strings.Repeat("x", 3*maxOutput)))
	if n := len(out.String()); n != maxOutput {
		t.Errorf("kept %d bytes", n)
	}
}

func TestStamp(t *testing.T) {
	if got := stamp(time.Date(2025, 4, 1, 11, 46, 36, 535519123, time.FixedZone("", -5*3600))); got != "2025-04-01T16:46:36.535519Z" {
		t.Error(got)
	}
}
