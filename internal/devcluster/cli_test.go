package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func call(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func TestCommandLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	for line, test := range map[string]struct {
		code     int
		out, err string // substrings
	}{
		"":                                    {2, "", "devcluster up"},
		"help":                                {0, "devcluster up", ""},
		"-h":                                  {0, "Exit codes", ""},
		"version":                             {0, "devcluster (Kubernetes ", ""},
		"fly":                                 {2, "", `unknown command "fly"`},
		"up":                                  {2, "", "--dir is required"},
		"up --help":                           {0, "--new-ca", ""},
		"up --dir D --prot 1":                 {2, "", "--prot"},
		"up --dir D --port x":                 {2, "", "port"},
		"up --dir D --port 70000":             {2, "", "70000"},
		"up --dir D --compute Node_1":         {2, "", "Node_1"},
		"up --dir D --stdin --crds /nowhere":  {1, "", "/nowhere"},
		"down":                                {2, "", "--dir"},
		"down --dir D":                        {0, "", "no cluster is running"},
		"down --dir D --purge":                {0, "", "no cluster state"},
		"apply --dir D":                       {2, "", "-f"},
		"apply --dir D -f /nowhere":           {1, "", "/nowhere"},
		"apply --dir D -f -":                  {1, "", "document 1"},
		"get --dir D clientmounts":            {2, "", "1 arguments given, 2 required"},
		"get --dir D clientmounts a/b/c":      {2, "", "NAMESPACE"},
		"get --dir D clientmounts a/b -o x":   {2, "", "yaml or json"},
		"get --dir D clientmounts a/b":        {1, "", "no cluster in"},
		"get clientmounts a/b":                {2, "", "--dir is required"},
		"patch --dir D clientmounts a/b {":    {2, "", "not JSON"},
		"patch --dir D clientmounts a/b":      {2, "", "2 arguments given, 3 required"},
		"delete --dir D clientmounts a/b":     {1, "", "no cluster in"},
		"wait --dir D clientmounts a/b":       {2, "", "FIELD=VALUE"},
		"wait --dir D x a --for =v":           {2, "", "FIELD=VALUE"},
		"wait --dir D x a --for a=b":          {1, "", "no cluster in"},
		"rabbit":                              {2, "", "--dir is required"},
		"rabbit --dir D extra":                {2, "", "unexpected arguments"},
		"rabbit --dir D --map /a":             {2, "", "expected /FROM=/TO"},
		"rabbit --dir D --fault fly":          {2, "", "expected PATTERN"},
		"rabbit --dir D --namespace Rabbit_1": {2, "", "Rabbit_1"},
		"rabbit --dir D --stdin":              {1, "", "no cluster in"},
		"token --dir D":                       {2, "", "clientmountd or nnf-dm"},
		"token --dir D --daemon x":            {2, "", `"x"`},
		"token --dir D --daemon nnf-dm extra": {2, "", "unexpected arguments"},
		"token --dir D --daemon nnf-dm":       {1, "", "no cluster in"},
	} {
		t.Run(line, func(t *testing.T) {
			var args []string
			for _, a := range strings.Fields(line) {
				if a == "D" {
					a = dir
				}
				args = append(args, a)
			}
			code, out, err := call(t, "- not an object\n", args...)
			if code != test.code || !strings.Contains(out, test.out) || !strings.Contains(err, test.err) {
				t.Errorf("exit %d, stdout %q, stderr %q; want %d, %q, %q", code, out, err, test.code, test.out, test.err)
			}
			if code != 0 && out != "" {
				t.Errorf("a failure wrote to stdout: %q", out)
			}
			if code != 0 && line != "" && !strings.HasPrefix(err, "devcluster: ") {
				t.Errorf("stderr without the program name: %q", err)
			}
		})
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a failed call created the directory: %v", err)
	}
}

func TestEveryCommandIsInHelp(t *testing.T) {
	_, help, _ := call(t, "", "help")
	for _, c := range commands() {
		if !strings.Contains(help, "devcluster "+c.name+" "+c.args) {
			t.Errorf("help lacks %s", c.name)
		}
	}
}
