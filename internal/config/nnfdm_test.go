package config

import (
	"bytes"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func loadNnfdm(t *testing.T, file string, environ, args []string) (*Nnfdm, Result, error) {
	t.Helper()
	c := &Nnfdm{}
	r, rest, err := Load(NnfdmTable(c), Sources{File: file, Environ: environ, Args: args})
	if len(rest) > 0 {
		t.Errorf("rest %q", rest)
	}
	return c, r, err
}

func TestNnfdmFiles(t *testing.T) {
	text := DefaultFile(NnfdmTable(&Nnfdm{}))
	golden(t, "../../etc/nnf-dm/config.toml", text)
	var b bytes.Buffer
	if err := Usage(&b, NnfdmTable(&Nnfdm{})); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/nnf-dm.usage", b.String())
	for _, line := range strings.Split(text+b.String(), "\n") {
		if utf8.RuneCountInString(line) > columns {
			t.Errorf("longer than %d: %s", columns, line)
		}
	}
	// Uncommented it yields the defaults.
	want, _, err := loadNnfdm(t, "/dev/null", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"config.toml": regexp.MustCompile(`(?m)^#(\w+ = )`).ReplaceAllString(text, "$1")})
	got, _, err := loadNnfdm(t, dir+"/config.toml", nil, nil)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v\n%v", got, want, err)
	}
}

// The flags and environment names of earlier daemons.
func TestNnfdmContract(t *testing.T) {
	c, _, err := loadNnfdm(t, "/dev/null", []string{
		"KUBERNETES_SERVICE_HOST=10.0.0.5", "KUBERNETES_SERVICE_PORT=6443", "NODE_NAME=compute-1", "NNF_NODE_NAME=rabbit-1",
		"NNF_DATA_MOVEMENT_SERVICE_TOKEN_FILE=/t", "NNF_DATA_MOVEMENT_SERVICE_CERT_FILE=/c",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Kubernetes.ServiceHost != "10.0.0.5" || c.Kubernetes.ServicePort != "6443" || c.Node.Name != "compute-1" || c.Node.Rabbit != "rabbit-1" ||
		c.Kubernetes.TokenFile != "/t" || c.Kubernetes.CertFile != "/c" {
		t.Errorf("%+v", c)
	}
	if c.Socket.Path != "/var/run/nnf-dm.sock" || c.Node.SystemConfiguration != "default" || c.Daemon.Simulated || c.Kubernetes.QPS != 50 || c.Kubernetes.Burst != 100 ||
		c.Daemon.IdleTimeout != 5*time.Minute {
		t.Errorf("defaults %+v", c)
	}
	c, _, err = loadNnfdm(t, "/dev/null", nil, []string{
		"-socket", "/tmp/s", "--kubernetes-service-host=h", "--kubernetes-service-port", "1", "--node-name=n", "--nnf-node-name", "r",
		"--service-token-file=/a", "--service-cert-file=/b", "--sys-config=other", "--simulated", "--kubernetes-qps", "7", "--kubernetes-burst=8", "--kubeconfig=/k",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Socket.Path != "/tmp/s" || c.Kubernetes.ServiceHost != "h" || c.Kubernetes.ServicePort != "1" || c.Node.Name != "n" || c.Node.Rabbit != "r" ||
		c.Kubernetes.TokenFile != "/a" || c.Kubernetes.CertFile != "/b" || c.Node.SystemConfiguration != "other" || !c.Daemon.Simulated ||
		c.Kubernetes.QPS != 7 || c.Kubernetes.Burst != 8 || c.Kubernetes.Kubeconfig != "/k" {
		t.Errorf("%+v", c)
	}
}

func TestPermissions(t *testing.T) {
	for text, want := range map[string]uint32{"0666": 0o666, "0660": 0o660, "0600": 0o600, "666": 0, "0888": 0, "rw": 0, "": 0, "0066": 0, "01777": 0} {
		got, err := Permissions(text)
		if uint32(got) != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %o %v", text, got, err)
		}
	}
	_, _, err := loadNnfdm(t, write(t, map[string]string{"config.toml": "socket.mode = \"rwx\"\n"})+"/config.toml", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "config.toml:1: socket.mode") {
		t.Errorf("error %v", err)
	}
}

func TestNnfdmReloads(t *testing.T) {
	fixed := []string{"kubernetes.", "node.", "socket.", "runtime.", "strict_credentials", "log.format", "daemon.simulated", "limits.message_size", "limits.memory", "limits.handshake_time"}
	for _, s := range NnfdmTable(&Nnfdm{}).Settings {
		want := !slices.ContainsFunc(fixed, func(p string) bool { return strings.HasPrefix(s.Key, p) })
		if s.Reload != want {
			t.Errorf("%s reloads: %v", s.Key, s.Reload)
		}
	}
}
