package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// install makes the files of a state, without nnf-deploy.
func (g *goods) install(n *node, s state) {
	programs, settings := wants(s)
	for path, release := range programs {
		if strings.HasPrefix(path, "usr/bin/") {
			data, err := os.ReadFile(filepath.Join(g.dir, "bin-"+release, filepath.Base(path)))
			n.must(err)
			n.put(path, string(data), 0o755)
		} else {
			release, _, _ := strings.Cut(release, "/")
			n.put(path, "# release "+release+"\n", 0o644)
		}
	}
	for path, version := range settings {
		d := product.Daemons[0]
		if strings.Contains(path, product.Daemons[1].Name) {
			d = product.Daemons[1]
		}
		text, mode := "[kubernetes]\nservice_host = \""+version+".example\"\n[node]\nname = \""+n.name+"\"\n", os.FileMode(0o644)
		switch base := filepath.Base(path); {
		case strings.HasPrefix(base, "service."):
			texts := g.credentialTexts(n.name, version, d.Name)
			if text, mode = texts[0], 0o600; base == product.CertFile {
				text = texts[1]
			}
			if d.Owner != "root:root" {
				mode = 0o640
			}
		case strings.HasSuffix(base, ".conf") && version == "a":
			text, mode = "release-a "+secretMark, 0o600
		case strings.HasSuffix(base, ".conf"):
			text = "release-" + version
		}
		n.put(path, text, mode)
		if mode == 0o640 {
			n.must(os.Chown(n.path(path), 0, account))
		}
	}
	n.model.may = []state{s}
}

// withNodes does f with a world in which no nnf-deploy runs.
func withNodes(t *testing.T, f func(w *nodes)) error {
	t.Helper()
	need(t)
	return lab.Do(t.Context(), func(tb lab.TB) {
		w := newNodes(tb)
		defer w.close()
		f(w)
	})
}

// A node with the files of a release has no problem. Each violation is found.
func TestViolations(t *testing.T) {
	release := func(r, name string) string {
		data, err := os.ReadFile(filepath.Join(common.goods.dir, r, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	complete := func(n *node) {
		n.runs = []*run{{verb: "install", targets: map[string]target{n.name: {"a/bin", "a"}}, reported: map[string]result{n.name: {n.name, "ok", ""}}}}
	}
	for _, tt := range []struct {
		name string
		do   func(n *node)
		want string // "": no problem
	}{
		{"nothing", func(*node) {}, ""},
		{"a package that is installed as well", func(n *node) {
			n.must(n.command("rpm", "-U", "--justdb", common.goods.rpm("b", "nnf-dm")).Run())
		}, "package nnf-dm is b/rpm, and must not exist"},
		{"a program of another release", func(n *node) { n.put("usr/bin/nnf-dm", release("bin-b", "nnf-dm"), 0o755) }, "usr/bin/nnf-dm is b, not a"},
		{"a missing program", func(n *node) { n.must(os.Remove(n.path("usr/bin/nnf-dmctl"))) }, "usr/bin/nnf-dmctl is missing, not a"},
		{"a truncated program", func(n *node) { n.put("usr/bin/clientmountd", release("bin-a", "nnf-dm")[:5000], 0o755) }, "usr/bin/clientmountd has wrong contents"},
		{"a unit of another release", func(n *node) { n.put("etc/systemd/system/nnf-dm.socket", "# release b\n", 0o644) }, "nnf-dm.socket is b/bin, not a/bin"},
		{"a unit of a package", func(n *node) { n.put("usr/lib/systemd/system/nnf-dm.service", "# release a\n", 0o644) }, "is a/rpm, and must not exist"},
		{"a token of another version", func(n *node) {
			n.put("etc/clientmountd/service.token", release("credentials-b/clientmountd", "service.token"), 0o600)
		}, "service.token is b, not a"},
		{"a truncated token", func(n *node) {
			text := n.get("etc/clientmountd/service.token")
			n.put("etc/clientmountd/service.token", text[:len(text)-1], 0o600)
		}, "service.token has wrong contents"},
		{"an empty token", func(n *node) { n.put("etc/nnf-dm/service.token", "", 0o640) }, "is empty or no file"},
		{"a readable token", func(n *node) { n.must(os.Chmod(n.path("etc/clientmountd/service.token"), 0o644)) }, "service.token has the mode -rw-r--r--"},
		{"a token of another user", func(n *node) { n.must(os.Chown(n.path("etc/nnf-dm/service.token"), 12, account)) }, "the owner 12:64321"},
		{"settings of another release", func(n *node) {
			n.put("etc/nnf-dm/config.d/50-nnf-deploy.toml", "service_host = \"b.example\"\nname = \""+n.name+"\"\n", 0o644)
		}, "50-nnf-deploy.toml is b, not a"},
		{"settings of another node", func(n *node) {
			n.put("etc/nnf-dm/config.d/50-nnf-deploy.toml", "service_host = \"a.example\"\nname = \"compute-02\"\n", 0o644)
		}, "50-nnf-deploy.toml has wrong contents"},
		{"a drop-in that stays", func(n *node) {
			n.must(os.Remove(n.path("etc/systemd/system/nnf-dm.service.d/50-nnf-deploy.conf")))
		}, "50-nnf-deploy.conf is missing, not a"},
		{"a change of the administrator's file", func(n *node) {
			n.edit("etc/clientmountd/notes")
			n.put("etc/clientmountd/notes", "ours", 0o644)
		}, `the administrator's etc/clientmountd/notes is "ours"`},
		{"a removed file of the administrator", func(n *node) {
			n.edit("etc/nnf-dm/config.toml")
			n.must(os.Remove(n.path("etc/nnf-dm/config.toml")))
		}, `the administrator's etc/nnf-dm/config.toml is ""`},
		{"a file that rpm saves", func(n *node) {
			n.edit("etc/nnf-dm/config.toml")
			n.must(os.Rename(n.path("etc/nnf-dm/config.toml"), n.path("etc/nnf-dm/config.toml.rpmsave")))
		}, ""},
		{"a changed file of another program", func(n *node) { n.must(os.Chown(n.path(victim), 0, account)) }, "the file of another program was changed"},
		{"a temporary file after a complete run", func(n *node) {
			complete(n)
			n.put("etc/nnf-dm/service.token.nnf-deploy-old", "", 0o600)
		}, "service.token.nnf-deploy-old is left after a complete run"},
		{"an old program that runs after a complete run", func(n *node) {
			complete(n)
			n.put("run/fake/active.clientmountd.service", "active\n", 0o600)
			n.put("run/fake/active.nnf-dm.socket", "active\n", 0o600)
			n.put("run/fake/running.clientmountd.service", sum([]byte(release("bin-b", "clientmountd"))), 0o600)
		}, "clientmountd.service runs with the program b"},
		{"a socket that is closed after a complete run", func(n *node) {
			complete(n)
			n.put("run/fake/active.clientmountd.service", "active\n", 0o600)
			n.put("run/fake/running.clientmountd.service", sum([]byte(release("bin-a", "clientmountd"))), 0o600)
		}, "nnf-dm.socket does not run"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var problems []string
			err := withNodes(t, func(w *nodes) {
				n := w.list[0]
				common.goods.install(n, state{"a/bin", "a"})
				tt.do(n)
				problems = common.goods.check(n)
			})
			text := strings.Join(problems, "\n")
			if err != nil || (tt.want == "") != (len(problems) == 0) || !strings.Contains(text, tt.want) {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}

// Everything that the removal leaves is found, except what belongs to others.
func TestRemains(t *testing.T) {
	err := withNodes(t, func(w *nodes) {
		n := w.list[0]
		n.edit("etc/clientmountd/notes")
		n.put("etc/nnf-dm/config.toml.rpmsave", "", 0o600)
		if left := n.remains(); len(left) != 0 {
			t.Errorf("%q", left)
		}
		n.put("etc/nnf-dm/config.d/50-nnf-deploy.toml", "", 0o600)
		n.put("var/lib/nnf-deploy/lock", "", 0o600)
		n.must(os.Mkdir(n.path("etc/clientmountd/config.d"), 0o700))
		want := []string{"etc/clientmountd/config.d", "etc/nnf-dm/config.d", "etc/nnf-dm/config.d/50-nnf-deploy.toml", "var/lib/nnf-deploy", "var/lib/nnf-deploy/lock"}
		if left := n.remains(); !slices.Equal(left, want) {
			t.Errorf("%q", left)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// A secret that others can read, even for the time between two commands, is found, and so is one in a
// command line.
func TestSecrets(t *testing.T) {
	secret := "echo " + secretMark + "x"
	for _, tt := range []struct{ name, script, want string }{
		{"closed from the start", "umask 077; " + secret + " >etc/token; mv etc/token etc/other; chmod 0640 etc/other", ""},
		{"closed after its creation", "umask 022; rm -f etc/token; " + secret + " >etc/token; chmod 0600 etc/token", "etc/token has a secret, and was open to others: mode 0644"},
		{"filled after it was closed", "umask 022; rm -f etc/token; : >etc/token; chmod 0600 etc/token; " + secret + " >>etc/token", "was open to others: mode 0644"},
		{"opened for a moment", "umask 077; " + secret + " >etc/token; chmod 0604 etc/token; chmod 0600 etc/token", "was open to others: mode 0604"},
		{"a group of others", "umask 077; " + secret + " >etc/token; chgrp 12 etc/token; chmod 0640 etc/token", "mode 0640, owner 0:12"},
		{"another owner", "umask 077; " + secret + " >etc/token; chown 12 etc/token", "mode 0600, owner 12:0"},
		{"in a new directory", "umask 022; mkdir -p etc/new/d; " + secret + " >etc/new/d/token", "etc/new/d/token has a secret"},
		{"readable", "umask 022; " + secret + " >etc/token", "a local user has read"},
		{"in a command line", "sh -c ': $0; read x' " + secretMark + "x", "a secret is in a command line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := withNodes(t, func(w *nodes) {
				file := filepath.Join(t.TempDir(), "script") // a secret in a command line is a problem
				w.must(os.WriteFile(file, []byte("cd "+w.list[0].root+"\n"+tt.script+"\n"), 0o600))
				found := func() bool {
					return slices.ContainsFunc(w.watcher.found(), func(s string) bool { return strings.Contains(s, tt.want) })
				}
				// On a very busy machine, a moment can be missed.
				for again := true; again; again = tt.want != "" && !found() && t.Context().Err() == nil {
					cmd := exec.Command("sh", file)
					in, err := cmd.StdinPipe()
					w.must(err)
					w.must(cmd.Start())
					for end := time.Now().Add(time.Second); tt.want != "" && !found() && time.Now().Before(end); {
						time.Sleep(time.Millisecond)
					}
					in.Close()
					_ = cmd.Wait() // read ends with an error
				}
				if tt.want == "" {
					checked := w.watcher.checks.Load()
					w.list[0].put("etc/last", "", 0o600)
					wait.Until(t, "the last event", func() bool { return w.watcher.checks.Load() > checked+2 })
					if p := w.watcher.found(); len(p) != 0 {
						t.Errorf("%q", p)
					}
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// What the administrator has made readable is no problem, until nnf-deploy replaces the file.
func TestExcused(t *testing.T) {
	err := withNodes(t, func(w *nodes) {
		n := w.list[0]
		common.goods.install(n, state{"a/bin", "a"})
		w.harm(n, "permit", []string{"1", "token", ""})
		common.goods.check(n)
		n.put("etc/last", "", 0o600)
		if p := append(w.watcher.found(), common.goods.check(n)...); len(p) != 0 {
			t.Errorf("%q", p)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// The model has the states that some of the runs can have left.
func TestModel(t *testing.T) {
	a, b := target{"a/rpm", "a"}, target{settings: "b"}
	for _, tt := range []struct {
		runs []target
		want []state
	}{
		{nil, []state{{none, none}}},
		{[]target{a}, []state{{none, none}, {"a/rpm", "a"}}},
		{[]target{a, b}, []state{{none, none}, {"a/rpm", "a"}, {"a/rpm", "b"}, {none, "b"}}},
	} {
		if got := after([]state{{none, none}}, tt.runs); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.runs, got, tt.want)
		}
	}
	for _, tt := range []struct {
		name    string
		result  result
		crashed bool
		want    model
		last    bool // the run is complete
	}{
		{"ok", result{"", "ok", ""}, false, model{may: []state{{"a/rpm", "a"}}}, true},
		{"unchanged", result{"", "unchanged", ""}, false, model{may: []state{{"a/rpm", "a"}}}, true},
		{"killed", result{}, false, model{may: []state{{none, none}, {"a/rpm", "a"}}}, false},
		{"undone", result{"", "failed", "x; the previous state was restored"}, false, model{may: []state{{none, none}}}, false},
		{"not started", result{"", "skipped", "not started: interrupted"}, false, model{may: []state{{none, none}}}, false},
		{"crashed", result{"", "failed", "not reachable"}, true, model{may: []state{{none, none}, {"a/rpm", "a"}}, programs: true, settings: true}, false},
		{"mixed", result{"", "failed", "x; could not restore /y"}, false, model{may: []state{{none, none}, {"a/rpm", "a"}}, programs: true, settings: true}, false},
	} {
		n := &node{root: t.TempDir(), model: newModel(), crashed: tt.crashed, runs: []*run{{verb: "install", targets: map[string]target{"": a}, reported: map[string]result{"": tt.result}}}}
		if last := n.learn(); (last != nil) != tt.last || !slices.Equal(n.model.may, tt.want.may) || n.model.programs != tt.want.programs || n.model.settings != tt.want.settings {
			t.Errorf("%s: %v %v", tt.name, last != nil, n.model)
		}
	}
}

// Results that do not agree with the exit code, and secrets in the output, are found.
func TestResults(t *testing.T) {
	head := `{"kind":"nnf-deploy results"}` + "\n"
	for _, tt := range []struct{ name, results, output, exit, want string }{
		{"good", `{"node":"n","result":"ok"}`, "", "0", ""},
		{"failed", `{"node":"n","result":"failed","cause":"x"}`, "", "1", ""},
		{"without a cause", `{"node":"n","result":"failed"}`, "", "1", "n failed without a cause"},
		{"exit code 0", `{"node":"n","result":"failed","cause":"x"}`, "", "0", "exit code 0, but the results are"},
		{"exit code 1", `{"node":"n","result":"ok"}`, "", "1", "exit code 1, but the results are"},
		{"a missing node", "", "", "0", "results of 0 nodes, not of 1"},
		{"a secret", `{"node":"n","result":"ok"}`, secretMark, "0", "a secret is in the output"},
		{"a panic", `{"node":"n","result":"failed","cause":"x"}`, "", "2", "exit code 2"},
	} {
		r := &run{verb: "install", nodes: []string{"n"}, results: filepath.Join(t.TempDir(), "results")}
		if err := os.WriteFile(r.results, []byte(head+tt.results), 0o600); err != nil {
			t.Fatal(err)
		}
		r.out.WriteString(tt.output)
		r.cmd = exec.Command("sh", "-c", "exit "+tt.exit)
		_ = r.cmd.Run() // the exit code is read
		if problems := strings.Join(r.read(), "\n"); (tt.want == "") != (problems == "") || !strings.Contains(problems, tt.want) {
			t.Errorf("%s: %s", tt.name, problems)
		}
	}
}
