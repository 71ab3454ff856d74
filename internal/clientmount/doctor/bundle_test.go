package doctor

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

// unpack returns the files of a bundle by name, without the directory.
func unpack(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		name, ok := strings.CutPrefix(h.Name, "clientmountd-doctor/")
		if err != nil || !ok || h.Typeflag != tar.TypeReg || h.Mode != 0o600 || strings.Contains(name, "..") {
			t.Errorf("%+v: %v", h, err)
		}
		files[name] = string(data)
	}
}

const privateKey = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEMARKERKEYxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\nMARKERSECONDLINExxxxxxxxxxxxxxxxxxxxxxxx\n-----END EC PRIVATE KEY-----\n"

// Secrets of all origins, in all files in which they may occur.
func TestBundleHasNoSecrets(t *testing.T) {
	r := newMachineRoot(t, apiServer(t, "", nil))
	token := "eyJhbGciOiJSUzI1NiJ9." + encode(`{"sub":"system:serviceaccount:nnf-system:nnf-clientmount"}`) + ".MARKERTOKENSIGNATURE"
	write(t, filepath.Dir(r.token), "token", token+"\n", 0o600)
	const dropIn = systemd.UnitDirectory + "/clientmountd.service.d/secret.conf"
	write(t, r.dir, dropIn, `[Service]
# Environment=OLD=MARKERCOMMENT
Environment=SITE_KEY=MARKERDROPIN "SPACED=MARKERSPACED one" 'QUOTED=MARKERQUOTED' \
  CONTINUED=MARKERCONTINUED
Environment=SHORT=MARKERS
Environment=GOGC=off NODE_NAME=compute-01 HTTPS_PROXY=http://user:MARKERPROXY@proxy:3128
SetCredential=key:MARKERCREDENTIAL
ExecStartPre=/bin/curl --header "Authorization: Bearer MARKERBEARER" https://user:MARKERURL@host/
ExecStartPre=/bin/tool --password=MARKERPASSWORD --token-file=/etc/tool/token api_key: "MARKERAPIKEY"
`, 0o644)
	for line, out := range r.outputs {
		r.outputs[line] = strings.Replace(out, "DropInPaths=\n", "DropInPaths="+dropIn+"\n", 1)
	}
	r.outputs["journalctl"] = "sent " + token + "\nencoded " + base64.StdEncoding.EncodeToString([]byte(token)) + "\nthe site's key is MARKERDROPIN and MARKERENVIRONMENT\nother eyJhbGciOiJSUzI1NiJ9.e30.MARKEROTHERTOKEN\n" + privateKey
	r.outputs["lsblk"] = "NAME MARKERCONTINUED\n"
	r.process(3211, "umount", clientmount.MarkVariable+"="+uid+"\x00SECRET_OF_PROCESS=MARKERPROCESS", "umount\x00-o\x00password=MARKEROPTION\"\x00/mnt/nnf/job7-0\x00")
	o := r.options()
	o.Environ = append(o.Environ, "SITE=MARKERENVIRONMENT")

	file := filepath.Join(t.TempDir(), "b.tar.gz")
	list, parts, err := Bundle(t.Context(), o, file)
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, file)
	for name, text := range files {
		for rest := text; ; {
			_, after, found := strings.Cut(rest, "MARKER")
			if !found {
				break
			}
			t.Errorf("%s contains MARKER%.30s", name, after)
			rest = after
		}
		if strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(token))) {
			t.Errorf("%s contains the encoded token", name)
		}
	}
	// What is not secret remains.
	for name, part := range map[string]string{
		"unit.txt":                 `GOGC=off NODE_NAME=compute-01 HTTPS_PROXY=[redacted]`,
		"config.txt":               `token_file`,
		"journal.txt":              "the site's key is [redacted] and [redacted]\n",
		"records/" + uid + ".json": path,
		"proc/self/mountinfo":      mountinfo,
		"proc/3211/stack":          "xfs_log_force",
		"doctor.txt":               "FAIL  commands",
		"doctor.json":              `"program": "clientmountd"`,
		"version.txt":              "clientmountd v1.2.3",
		"etc/os-release":           "ID=debian",
		"lvs.txt":                  "$ lvs --nolock -a",
		"status.json":              `"active": true`,
		"unit-properties.txt":      "KillMode=mixed\n",
		"mounts.json":              `"state": "stuck"`,
		"health.json":              `"line": "mount of /mnt/nnf/job7-0 stuck for `,
		"timeline.json":            `"lives": [`,
		"CONTENTS":                 "timeline.json\n",
	} {
		if !strings.Contains(files[name], part) {
			t.Errorf("%s has no %q: %s", name, part, files[name])
		}
		if strings.HasSuffix(name, ".json") && !json.Valid([]byte(files[name])) {
			t.Errorf("%s is not JSON: %s", name, files[name])
		}
	}
	schema.Check(t, "doctor", []byte(files["doctor.json"]))
	schema.Check(t, "clientmountd-mounts", []byte(files["mounts.json"]))
	schema.Check(t, "clientmountd-health", []byte(files["health.json"]))
	schema.Check(t, "clientmountd-timeline", []byte(files["timeline.json"]))
	if doc, err := mountstate.ParseTimeline([]byte(files["timeline.json"])); err != nil || len(doc.Lives) != 1 || doc.Lives[0].UID != uid {
		t.Errorf("%+v, %v", doc, err)
	}
	if !strings.Contains(files["unit.txt"], "--token-file=/etc/tool/token") || !strings.Contains(files["unit.txt"], "SITE_KEY=[redacted]") {
		t.Errorf("unit.txt: %s", files["unit.txt"])
	}
	if !checklist.Failed(list) {
		t.Error("the hanging command is not reported")
	}
	for _, p := range parts {
		if text, ok := files[p.Name]; !ok || len(text) != p.Bytes {
			t.Errorf("%+v is not in the archive: %d bytes", p, len(text))
		}
	}
	if len(parts) != len(files)-1 {
		t.Errorf("%d parts, %d files", len(parts), len(files))
	}
	if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
}

// The secrets in a kubeconfig are known as well.
func TestBundleKubeconfig(t *testing.T) {
	r := newMachineRoot(t, nil)
	kubeconfig := write(t, t.TempDir(), "kubeconfig", `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: MARKERKUBECONFIG}}]
`, 0o600)
	write(t, filepath.Dir(r.config), "config.toml", fmt.Sprintf("[kubernetes]\nkubeconfig = %q\n", kubeconfig), 0o644)
	r.outputs["journalctl"] = "sent MARKERKUBECONFIG, " + base64.StdEncoding.EncodeToString([]byte("MARKERKUBECONFIG")) + "\n"
	o := r.options()
	o.Offline = true
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if _, _, err := Bundle(t.Context(), o, file); err != nil {
		t.Fatal(err)
	}
	if got, want := unpack(t, file)["journal.txt"], "sent [redacted], [redacted]\n"; !strings.Contains(got, want) {
		t.Errorf("%q", got)
	}
}

// A bundle never replaces a file, and never writes through a link.
func TestBundleReplacesNothing(t *testing.T) {
	r := newMachineRoot(t, nil)
	o := r.options()
	o.Offline = true
	dir := t.TempDir()
	existing := write(t, dir, "existing", "content", 0o644)
	link, dangling := filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := errors.Join(os.Symlink(existing, link), os.Symlink(filepath.Join(dir, "nothing"), dangling)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{existing, link, dangling, filepath.Join(dir, "missing", "x"), dir} {
		if _, _, err := Bundle(t.Context(), o, file); err == nil {
			t.Errorf("%s: no error", file)
		}
	}
	if data, err := os.ReadFile(existing); string(data) != "content" || err != nil {
		t.Errorf("%q %v", data, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the target of a link was created: %v", err)
	}
}

// Nothing is left if the run is interrupted, and the file of another program is never removed.
func TestBundleInterrupted(t *testing.T) {
	for name, swap := range map[string]bool{"removed": false, "not ours": true} {
		t.Run(name, func(t *testing.T) {
			r := newMachineRoot(t, nil)
			o := r.options()
			file := filepath.Join(t.TempDir(), "b.tar.gz")
			ctx, cancel := context.WithCancelCause(t.Context())
			cause := errors.New("Ctrl-C")
			interrupt := sync.OnceFunc(func() { // other sources continue after the end of the run
				if swap {
					_ = os.Rename(file, file+".old")
					_ = os.WriteFile(file, []byte("other"), 0o600)
				}
				cancel(cause)
			})
			o.Offline, o.Exec = true, runs(interrupt)
			if _, _, err := Bundle(ctx, o, file); !errors.Is(err, cause) {
				t.Errorf("%v", err)
			}
			data, err := os.ReadFile(file)
			if swap && string(data) != "other" || !swap && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%q, %v", data, err)
			}
		})
	}
}

// An archive that cannot be written is an error.
func TestArchiveFails(t *testing.T) {
	if _, err := archive(failingWriter{}, []part{{"x", strings.Repeat("x", 1<<20), ""}}, time.Now()); err == nil {
		t.Error("no error")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// Each file, their number and the whole archive are bounded, and what is missing is marked.
func TestArchiveIsBounded(t *testing.T) {
	long := strings.Repeat(strings.Repeat("x", 99)+"\n", maxPart/100+10)
	var all []part
	for i := range 30 {
		all = append(all, part{fmt.Sprintf("long-%d", i), long, ""}, part{fmt.Sprintf("%d.json", i), "{}", "left out"})
	}
	for i := range maxParts {
		all = append(all, part{fmt.Sprintf("short-%d", i), "x\n", ""})
	}
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	parts, err := archive(f, all, time.Now())
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	files, total := unpack(t, file), 0
	for _, text := range files {
		total += len(text)
	}
	if total > maxBundle+1<<20 || len(files) > maxParts+2 { // nnf-deploy refuses a bundle with too many files
		t.Errorf("%d bytes in %d files", total, len(files))
	}
	if p := parts[0]; !strings.HasPrefix(p.Note, "truncated: the first 2097152 of ") || !strings.HasSuffix(files["long-0"], "x\n\n["+p.Note+"]\n") || len(files["long-0"]) > maxPart+100 {
		t.Errorf("%+v, %d bytes", p, len(files["long-0"]))
	}
	if files["0.json"] != "{}" || !strings.Contains(files["CONTENTS"], "0.json  [left out]\n") {
		t.Errorf("%q", files["0.json"])
	}
	if p := parts[len(parts)-1]; p.Note == "" || !strings.Contains(files["CONTENTS"], p.Note) {
		t.Errorf("%+v", p)
	}
}

func TestWholeLines(t *testing.T) {
	if got, want := wholeLines("a\nb part\n… 12 bytes left out …\npart c\nd\n"), "a\n… 12 bytes left out …\nd\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := cutLines("abc\ndef\n", 6); got != "abc\n" {
		t.Errorf("%q", got)
	}
	if got := cutLines("abcdef", 3); got != "" {
		t.Errorf("%q", got)
	}
}

func TestSplitWords(t *testing.T) {
	for text, want := range map[string][]string{
		`A=b  "C=d e" 'F=g "h"'`: {"A=b", "C=d e", `F=g "h"`}, `A="b c"d`: {"A=b cd"}, `A=b\ c`: {"A=b c"}, "": nil, `""`: {""}, `"A`: {"A"},
	} {
		if got := splitWords(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// The timeline of a busy node loses its oldest lives, and remains a document.
func TestBundleOfLongTimeline(t *testing.T) {
	doc := &mountstate.Timeline{Version: mountstate.TimelineVersion}
	for i := range 200 {
		life := mountstate.Life{ClientMount: fmt.Sprint(i), UID: fmt.Sprint(i)}
		for range 100 {
			life.Steps = append(life.Steps, mountstate.Step{Name: "mount", Error: strings.Repeat("e", 300)})
		}
		doc.Lives = append(doc.Lives, life)
	}
	note := latest(doc)
	text := document(newRedactor(nil, nil, new(clientmount.Configuration).Table()), doc)
	short, err := mountstate.ParseTimeline([]byte(text))
	if err != nil || len(text) > maxPart || len(text) < maxPart*3/4 || short.Lives[len(short.Lives)-1].UID != "199" {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if want := fmt.Sprintf("truncated: without the oldest %d of 200 ClientMounts", 200-len(short.Lives)); note != want {
		t.Errorf("%q, want %q", note, want)
	}
	if note := latest(short); note != "" {
		t.Error(note)
	}
}

// A secret is removed from a document although JSON escapes its characters, and numbers stay exact.
func TestDocument(t *testing.T) {
	type part struct {
		Text   string
		Number uint64
	}
	clean := newRedactor([]string{"MARKER\"one\"\n"}, nil, new(clientmount.Configuration).Table())
	got := document(clean, &struct{ B, A part }{part{"x MARKER\"one\"\n y", 1<<64 - 1}, part{`password=MARKER\"`, 1}})
	want := `{
  "B": {
    "Text": "x [redacted] y",
    "Number": 18446744073709551615
  },
  "A": {
    "Text": "password=[redacted]\"",
    "Number": 1
  }
}
`
	if got != want {
		t.Errorf("%s\nwant:\n%s", got, want)
	}
}

// Ordinary texts are not changed.
func TestRedactorKeeps(t *testing.T) {
	r := newRedactor([]string{"short", "a-long-secret-value"}, []string{"DEBUG=true", "PATH=/usr/bin:/usr/sbin", "X=MARKERVALUE"}, new(clientmount.Configuration).Table())
	for _, text := range []string{
		"true", "short", "/usr/bin:/usr/sbin", `token_file = "/etc/clientmountd/service.token"`, "the token expired at 2026-11-30T12:00:00Z",
		"/dev/mapper/11110000--0000--4000--8000--00000000000b_0_1-lv", "https://api.example:6443/version", "account system:serviceaccount:nnf-system:nnf-clientmount",
		"Environment", "keyring", "compass=north-west", "chown -u user:group", "10.1.1.1@o2ib:10.1.1.2@o2ib:/lustre", "tool --token-file /etc/tool/token --password-file key", "--token=/etc/token",
		"check passed: 12345", "ssh://host/x?a@b", "the secret is not known", "umount -u 1000:1000", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
	} {
		if got := r.text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	for text, want := range map[string]string{
		"x a-long-secret-value y": "x [redacted] y", "MARKERVALUE": redacted, "Bearer abcdefgh1234": "Bearer [redacted]",
		"secret=abcd1234": "secret=[redacted]", `"password": "abcd1234"`: `"password": "[redacted]"`, "-----BEGIN PRIVATE KEY-----\nabc": redacted,
		"http://user:pw@proxy:3128": "http://user:[redacted]@proxy:3128", "clone https://abcd1234efgh@git.example/x": "clone https://[redacted]@git.example/x",
		`tool --password hunter2secret --user x`: `tool --password [redacted] --user x`, `tool --auth-token 'abcd 1234' x`: `tool --auth-token '[redacted]' x`,
		`password="correct horse battery" x`: `password="[redacted]" x`, `-o pass=abcd1234,user=x`: `-o pass=[redacted],user=x`, "DB_PASS=abcd1234": "DB_PASS=[redacted]",
		"passphrase: abcd1234": "passphrase: [redacted]", "X-Auth-Token: abcd1234": "X-Auth-Token: [redacted]",
		"curl -u user:abcd1234 https://host/": "curl -u user:[redacted] https://host/", "curl --user 'user:abcd 1234' https://host/": "curl --user 'user:[redacted]' https://host/",
	} {
		if got := r.text(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
}
