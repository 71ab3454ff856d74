package apiserver

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/schema"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

// doctorTests: clientmountd doctor reports exactly the layer of the connection that does not work.
var doctorTests = map[string]func(*env){
	"doctor: fine": func(s *env) {
		s.useAccount()
		s.ask()
		s.doctor("", "")
	},
	"doctor: name not resolved": func(s *env) {
		_, port, err := net.SplitHostPort(s.API.Address)
		s.Must(err)
		s.API.Address = net.JoinHostPort("no-such-host.invalid", port)
		s.doctor("dns", "the name no-such-host.invalid is not resolved")
	},
	"doctor: refused": func(s *env) {
		s.Proxy.Refuse()
		s.doctor("tcp", "connection refused")
		s.Must(s.Proxy.Accept())
	},
	"doctor: silent": func(s *env) {
		s.Proxy.HalfOpen(true)
		s.doctor("tls", "is not finished within")
		s.Proxy.HalfOpen(false)
	},
	"doctor: another authority": func(s *env) {
		_, err := s.Proxy.SwapCA()
		s.Must(err)
		s.doctor("tls", "is not signed by the CA in kubernetes.cert_file")
	},
	"doctor: another clock": func(s *env) {
		s.useAccount()
		s.Proxy.Skew(-time.Hour)
		s.doctor("clock", "ahead of that of the API server")
	},
	"doctor: expired token": func(s *env) {
		account := s.useAccount()
		payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sub":%q,"exp":1700000000}`, account.User()))
		parts := strings.Split(string(account.Token()), ".")
		s.Write("token", []byte(parts[0]+"."+payload+"."+parts[2]))
		s.doctor("credentials authentication", "the token expired at 2023-11-14T22:13:20Z")
	},
	"doctor: revoked token": func(s *env) {
		account := s.useAccount()
		account.Revoke("1", account.Token())
		s.doctor("authentication", "refuses the credentials")
	},
	"doctor: missing permission": func(s *env) {
		s.useAccount()
		r := granted()
		r["clientmounts"] = []any{"get", "list", "patch", "update"}
		r["nnfstorageprofiles"] = []any{"list"}
		s.setRights(r)
		// The server answers from a cache.
		s.awaitDoctor("permissions", "lacks permissions: watch clientmounts.dataworkflowservices.github.io in namespace "+s.Node+", get nnfstorageprofiles.nnf.cray.hpe.com in all namespaces")
	},
}

// networkChecks are the checks of the connection to the API server.
var networkChecks = []string{"credentials", "dns", "tcp", "tls", "clock", "authentication", "permissions", "versions"}

// doctor runs clientmountd doctor. Exactly the listed checks of the connection fail, the first with a
// text; those after them may be skipped.
func (s *env) doctor(failing, text string) {
	s.t.Helper()
	if wrong := s.diagnose(failing, text); wrong != nil {
		s.t.Error(wrong)
	}
}

func (s *env) awaitDoctor(failing, text string) {
	s.t.Helper()
	var wrong error
	for end := time.Now().Add(soon); ; {
		if wrong = s.diagnose(failing, text); wrong == nil || time.Now().After(end) {
			break
		}
	}
	if wrong != nil {
		s.t.Error(wrong)
	}
}

func (s *env) diagnose(failing, text string) error {
	s.t.Helper()
	program, err := lab.Binary("clientmountd")
	s.Must(err)
	host, port, err := net.SplitHostPort(s.API.Address)
	s.Must(err)
	config := s.Write("doctor.toml", fmt.Appendf(nil, "version = 1\n[kubernetes]\nservice_host = %q\nservice_port = %q\ntoken_file = %q\ncert_file = %q\n[node]\nname = %q\n[daemon]\nmount_namespace = \"any\"\n",
		host, port, s.Token, s.API.Cert, s.Node))
	var out bytes.Buffer
	cmd := exec.CommandContext(s.Context(soon), program, "doctor", "-o", "json", "--config", config, "--runtime-directory", s.Runtime)
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err = s.Lab.Run(cmd)
	s.t.Logf("clientmountd doctor takes %v", time.Since(began))
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err, out.String())
	}
	schema.Check(s.t, "doctor", out.Bytes())
	var doc checklist.Document
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		return fmt.Errorf("%w: %s", err, out.String())
	}
	if failed := checklist.Failed(doc.Checks); failed != (cmd.ProcessState.ExitCode() == 1) || cmd.ProcessState.ExitCode() > 1 {
		return fmt.Errorf("exit code %d: %+v", cmd.ProcessState.ExitCode(), doc.Checks)
	}
	var failed []string
	for _, c := range doc.Checks {
		if !slices.Contains(networkChecks, c.Name) {
			continue
		}
		switch c.State {
		case checklist.Fail:
			failed = append(failed, c.Name)
			if len(failed) == 1 && !strings.Contains(c.Text, text) {
				return fmt.Errorf("%+v", c)
			}
		case checklist.Skip:
			if len(failed) == 0 {
				return fmt.Errorf("skipped without a failure: %+v", c)
			}
		}
	}
	if strings.Join(failed, " ") != failing {
		return fmt.Errorf("%q fail, want %q: %+v", failed, failing, doc.Checks)
	}
	return nil
}
