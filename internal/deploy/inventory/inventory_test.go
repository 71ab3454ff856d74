package inventory

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// shipped is a daemons.yaml as existing installations have it.
const shipped = `
- name: nnf-fence
  repository: nnf-sos
  serviceAccount: {name: nnf-fencing-agent, namespace: nnf-system}
- name: nnf-data-movement
  bin: nnf-dm
  buildCmd: make build-daemon
  repository: nnf-dm
  path: bin/
  serviceAccount:
    name: nnf-dm-daemon
    namespace: nnf-dm-system
  extraArgs: --kubernetes-qps 50 --kubernetes-burst 100
  env:
  - {name: GOGC, value: off}
  - name: GOMEMLIMIT
    value: 20MiB
`

func TestReadDaemons(t *testing.T) {
	want := []Daemon{
		{Name: "nnf-fence", Repository: "nnf-sos", Account: product.Account{Name: "nnf-fencing-agent", Namespace: "nnf-system"}},
		{Name: "nnf-data-movement", Bin: "nnf-dm", BuildCommand: "make build-daemon", Repository: "nnf-dm", Path: "bin/",
			Account: product.Account{Name: "nnf-dm-daemon", Namespace: "nnf-dm-system"}, ExtraArgs: "--kubernetes-qps 50 --kubernetes-burst 100",
			Env: []EnvVar{{"GOGC", "off"}, {"GOMEMLIMIT", "20MiB"}}},
	}
	below := "daemons:" + strings.ReplaceAll(shipped, "\n", "\n  ")
	for _, text := range []string{shipped, below} {
		got, _, err := ReadDaemons(file(t, "daemons.yaml", text))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v %v", got, err)
		}
	}
}

func TestReadDaemonsErrors(t *testing.T) {
	const account = "serviceAccount: {name: a, namespace: n}"
	for _, tt := range []struct{ text, want string }{
		{"", "expected a list"},
		{"[]", "the list is empty"},
		{"daemons: []", "the list is empty"},
		{"deamons: []", `: unknown key "deamons", expected "daemons"`},
		{"daemons: []\nrepos: []", `: unknown key "repos", expected "daemons"`},
		{"- name: x\n  binary: nnf-dm\n", `:2: unknown key "binary"`},
		{"- name: x\n  buidCmd: make\n", ":2: unknown key \"buidCmd\", did you mean \"buildCmd\"?"},
		{"- name: x\n  serviceAccount: {name: a, nmespace: b}\n", `:2: unknown key "nmespace", did you mean "namespace"?`},
		{"- bin: nnf-dm\n  " + account, "name is missing"},
		{"- name: ../x\n  " + account, "is not a valid directory name"},
		{"- name: -x\n  " + account, "is not a valid directory name"},
		{"- name: .\n  " + account, "is not a valid directory name"},
		{"- name: a/b\n  " + account, "is not a valid directory name"},
		{"- name: x\n  bin: rm\n", `unknown bin "rm": use clientmountd or nnf-dm`},
		{"- name: x\n  serviceAccount: {name: a}", "needs a name and a namespace"},
		{"- name: x", "nothing to install"},
		{"- name: x\n  serviceAccount: {name: ../../a, namespace: n}", "not a valid name of a service account"},
		{"- name: x\n  " + account + "\n- name: x\n  " + account, "entry 2: x is listed twice"},
		{"- name: x\n  bin: nnf-dm\n- name: y\n  bin: nnf-dm\n", "entry 2: y is listed twice"},
		{"- name: x\n  bin: nnf-dm\n  extraArgs: \"a\\nb\"\n", "extraArgs contains a line break"},
		{"- name: x\n  bin: nnf-dm\n  env: [{name: A B, value: c}]\n", `"A B" is not a valid name of an environment variable`},
		{"- name: x\n  bin: nnf-dm\n  env: [{name: A, value: \"b\\nc\"}]\n", "the value of A contains a line break"},
		{"- name: [x]", ":1: expected a string, found a list"},
		{"- name: x\n  env:\n  - {name: A, value: b}\n  - {name: B, value: c, name: D}\n", `:4: duplicate key "name"`},
		{"- &x\n  name: x\n  bin: nnf-dm\n- <<: *x\n  name: y\n  bin: clientmountd\n  nmae: z\n", `:7: unknown key "nmae", did you mean "name"?`},
		{"- name: *x\n", "unknown anchor 'x' referenced"},
		{"- &x [*x]\n", ":1: expected a mapping, found a list"},
		{"a: b: c", "mapping values"},
		{"- name: x\n  bin: \"nnf-dm\n", ":2: found unexpected end of stream"},
	} {
		path := file(t, "daemons.yaml", tt.text)
		got, _, err := ReadDaemons(path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v %v", tt.text, got, err)
		}
	}
}

// The default entries are valid as entries of a file.
func TestDefaults(t *testing.T) {
	for _, d := range Defaults() {
		if err := d.check(); err != nil || d.Name != d.Bin || d.Account.Name == "" {
			t.Errorf("%+v: %v", d, err)
		}
	}
}

func TestReadSites(t *testing.T) {
	path := file(t, "systems.yaml", `systems:
- name: rabbit-tds
  aliases: [admin@tds, tds]
  overlays: [rabbit]
  systemConfiguration: tds.yaml
  k8sHost: 10.0.0.5
  k8sPort: 6443
- name: kind
  aliases: []
  overlays: [kind]
  systemConfiguration: /abs/kind.yaml
  k8sPort: "443"
`)
	all, _, err := ReadSites(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := SiteOf(all, "admin@tds")
	if err != nil || s.SystemConfiguration != filepath.Join(filepath.Dir(path), "tds.yaml") || s.Host != "10.0.0.5" || s.Port != "6443" {
		t.Errorf("%+v %v", s, err)
	}
	if s, err := SiteOf(all, "kind"); err != nil || s.SystemConfiguration != "/abs/kind.yaml" || s.Port != "443" {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := SiteOf(all, "kimd"); err == nil || !strings.Contains(err.Error(), `(known: rabbit-tds, admin@tds, tds, kind), did you mean "kind"?`) {
		t.Errorf("%v", err)
	}
}

func TestReadSitesErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"- name: a\n  systemConfiguraton: x\n", `:2: unknown key "systemConfiguraton", did you mean "systemConfiguration"?`},
		{"- systemConfiguration: x\n", "entry 1 has no name"},
		{"- name: a\n", "a has no systemConfiguration"},
		{"- {name: a, systemConfiguration: x, k8sPort: [1]}\n", ":1: expected a string, found a list"},
		{"- {name: a, systemConfiguration: x}\n- {name: b, aliases: [a], systemConfiguration: x}\n", `"a" is a name or alias of both a and b`},
	} {
		if got, _, err := ReadSites(file(t, "systems.yaml", tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v %v", tt.text, got, err)
		}
	}
}

// Keys that only earlier installers used are accepted with a warning that has their line
// number.
func TestRetiredKeys(t *testing.T) {
	path := filepath.Join("testdata", "daemons-retired.yaml")
	daemons, warnings, err := ReadDaemons(path)
	if err != nil || len(daemons) != 1 || daemons[0].Bin != "clientmountd" || daemons[0].Account != (product.Account{Name: "nnf-clientmount", Namespace: "nnf-system"}) {
		t.Errorf("%+v %v", daemons, err)
	}
	if want := []string{path + ":7: skipNnfNodeName has no effect: no daemon takes the name of its rabbit"}; !slices.Equal(warnings, want) {
		t.Errorf("%q", warnings)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, warnings, err = ReadDaemons(file(t, "daemons.yaml", strings.Replace(string(text), "namespace: nnf-system}", "namespace: nnf-system, token: service-token-file, cert: service-cert-file}", 1)))
	if err != nil || len(warnings) != 3 || !strings.Contains(warnings[1]+warnings[2], ":8: token has no effect") || !strings.Contains(warnings[1]+warnings[2], ":8: cert has no effect") {
		t.Errorf("%q %v", warnings, err)
	}

	path = filepath.Join("testdata", "systems-retired.yaml")
	sites, warnings, err := ReadSites(path)
	if err != nil || len(sites) != 1 || sites[0].SystemConfiguration != filepath.Join("testdata", "tds.yaml") {
		t.Errorf("%+v %v", sites, err)
	}
	for _, key := range []string{":5: master", ":6: workers", ":7: ports", ":8: rabbits", ":10: overrides"} {
		if !slices.ContainsFunc(warnings, func(w string) bool { return strings.HasPrefix(w, path+key+" has no effect: ") }) {
			t.Errorf("%s is not in %q", key, warnings)
		}
	}
	if len(warnings) != 5 {
		t.Errorf("%q", warnings)
	}
}

// A file with a retired key is still checked for mistakes, and a retired key in another place
// is an error.
func TestRetiredKeysAndMistakes(t *testing.T) {
	const account = "serviceAccount: {name: a, namespace: n}"
	for _, tt := range []struct{ text, want string }{
		{"- name: x\n  skipNnfNodeName: true\n  binary: y\n  " + account, `:3: unknown key "binary"`},
		{"- name: x\n  skipNnfNodename: true\n  " + account, `:2: unknown key "skipNnfNodename"`},
		{"- name: x\n  workers: []\n  " + account, `:2: unknown key "workers"`},
		{"- name: x\n  token: y\n  " + account, `:2: unknown key "token"`},
		{"- name: x\n  serviceAccount: {name: a, namespace: n, skipNnfNodeName: true}", `unknown key "skipNnfNodeName"`},
		{"- name: x\n  skipNnfNodeName: true\n  env: 7\n  " + account, `:3: expected a list, found "7"`},
	} {
		_, warnings, err := ReadDaemons(file(t, "daemons.yaml", tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || warnings != nil {
			t.Errorf("%q: %q %v", tt.text, warnings, err)
		}
	}
	_, _, err := ReadSites(file(t, "systems.yaml", "- name: a\n  rabbits: {r: {0: c}}\n"))
	if err == nil || !strings.Contains(err.Error(), "a has no systemConfiguration, the file that lists its nodes (rabbits has no effect)") {
		t.Error(err)
	}
	_, _, err = ReadSites(file(t, "systems.yaml", "- name: a\n  skipNnfNodeName: true\n  systemConfiguration: x\n"))
	if err == nil || !strings.Contains(err.Error(), `:2: unknown key "skipNnfNodeName"`) {
		t.Error(err)
	}
}

// FuzzReadDaemons checks that each file is read, or refused with an error on one line that
// names the file.
func FuzzReadDaemons(f *testing.F) {
	f.Add(shipped)
	f.Add("daemons: &a\n- &b {name: x, bin: nnf-dm, env: [{name: A, value: off}]}\n- <<: *b\n  name: y\n- *a\n")
	f.Add("- <<: [*x, {}]\n? [a]\n: !!binary x\n---\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		path := file(t, "daemons.yaml", text)
		list, warnings, err := ReadDaemons(path)
		if err != nil && (!strings.HasPrefix(err.Error(), path+":") || strings.ContainsAny(err.Error(), "\n\r\x1b") || list != nil || warnings != nil) {
			t.Errorf("%q: %q", text, err)
		}
	})
}
