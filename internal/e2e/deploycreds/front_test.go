package deploycreds

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// pki reads a PEM block of this type from a file with keys of the cluster.
func (s *site) pki(file, kind string) []byte {
	s.t.Helper()
	data, err := os.ReadFile(s.Cluster.Dir + "/pki/" + file)
	s.Must(err)
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			return block.Bytes
		}
	}
	s.t.Fatalf("no %s in %s", kind, file)
	return nil
}

// front starts a proxy of the API server, like a load balancer, with a certificate of the
// cluster's CA. change can change answers.
func (s *site) front(listen string, change func(*http.Response) error) *httptest.Server {
	s.t.Helper()
	ln, err := net.Listen("tcp", listen)
	s.Must(err)
	ca, err := x509.ParseCertificate(s.pki("ca.pem", "CERTIFICATE"))
	s.Must(err)
	caKey, err := x509.ParseECPrivateKey(s.pki("ca.pem", "EC PRIVATE KEY"))
	s.Must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	s.Must(err)
	of := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{ln.Addr().(*net.TCPAddr).IP}}
	der, err := x509.CreateCertificate(rand.Reader, of, ca, &key.PublicKey, caKey)
	s.Must(err)
	target, err := url.Parse(s.Cluster.URL)
	s.Must(err)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	server := &httptest.Server{Listener: ln, TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		Config: &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: transport, ModifyResponse: change}}}
	server.StartTLS()
	s.t.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	return server
}

// administratorAt sets a kubeconfig with this address, and with a token of an administrator of the
// site.
func (s *site) administratorAt(server string) {
	s.t.Helper()
	s.account("administrator")
	s.grant("administrator", []any{map[string]any{"apiGroups": []string{"*"}, "resources": []string{"*"}, "verbs": []string{"*"}}})
	s.kubeconfig = s.t.TempDir() + "/config"
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}],
		"users": [{"name": "u", "user": {"token": %q}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}`,
		server, base64.StdEncoding.EncodeToString(s.Cluster.CA()), s.token("administrator"))
	s.Must(os.WriteFile(s.kubeconfig, []byte(text), 0o600))
}

// expired returns a token of the cluster with a changed time.
func (s *site) expired(token string) string {
	s.t.Helper()
	parts := bytes.Split([]byte(token), []byte("."))
	payload, err := base64.RawURLEncoding.DecodeString(string(parts[1]))
	s.Must(err)
	var claims map[string]any
	s.Must(json.Unmarshal(payload, &claims))
	then := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	claims["exp"], claims["iat"], claims["nbf"] = then.Unix(), then.Unix()-3600, then.Unix()-3600
	if payload, err = json.Marshal(claims); err != nil {
		s.t.Fatal(err)
	}
	return s.sign(string(parts[0]) + "." + base64.RawURLEncoding.EncodeToString(payload))
}

func (s *site) sign(text string) string {
	s.t.Helper()
	key, err := x509.ParseECPrivateKey(s.pki("service-account.key", "EC PRIVATE KEY"))
	s.Must(err)
	sum := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, key, sum[:])
	s.Must(err)
	signature := append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// without removes fields from the data of a Secret, in this number of answers; -1: in all.
func without(t *testing.T, path string, answers int, fields ...string) func(*http.Response) error {
	return func(r *http.Response) error {
		if r.Request.URL.Path != path || answers == 0 {
			return nil
		}
		answers--
		data, err := io.ReadAll(r.Body)
		r.Body.Close()
		var o map[string]any
		if err != nil || json.Unmarshal(data, &o) != nil {
			t.Errorf("%s is not a Secret: %v", data, err)
			return err
		}
		for _, f := range fields {
			delete(o["data"].(map[string]any), f)
		}
		if data, err = json.Marshal(o); err != nil {
			return err
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
		r.Header.Set("Content-Length", fmt.Sprint(len(data)))
		return nil
	}
}

// asDaemon sends a request with the written files, as a daemon would, and returns the status code.
func (s *site) asDaemon(path string) int {
	s.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.read(s.out + "/service.cert")))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.Context(patience), http.MethodGet, s.Cluster.URL+path, nil)
	s.Must(err)
	req.Header.Set("Authorization", "Bearer "+s.read(s.out+"/service.token"))
	resp, err := client.Do(req)
	s.Must(err)
	resp.Body.Close()
	return resp.StatusCode
}

// If compute nodes use a different address than the administrator, the credentials are verified at
// that address.
func TestAddressForComputeNodes(t *testing.T) {
	s := newSite(t)
	front := s.front("[::1]:0", nil)
	_, port, _ := net.SplitHostPort(front.Listener.Addr().String())
	for _, host := range []string{"::1", "[::1]"} {
		s.works(s.run("--daemon", "nnf-dm", "--kubernetes-service-host", host, "--kubernetes-service-port", port),
			"permissions checked at https://[::1]:"+port, "API server for compute nodes: host ::1, port "+port)
	}
	s.out += "/none"
	s.fails(s.run("--kubernetes-service-host", "::1", "--kubernetes-service-port", "1"), "cannot reach API server https://[::1]:1", "refused")
}

// The kubeconfig has an IPv6 address, or no port.
func TestKubeconfigAddress(t *testing.T) {
	s := newSite(t)
	s.administratorAt(s.front("[::1]:0", nil).URL)
	s.works(s.run("--daemon", "nnf-dm"), "API server for compute nodes: host ::1, port ", "[::1]:")

	const unused = "127.86.4.11" // no process listens there
	ln, err := net.Listen("tcp", unused+":443")
	if err != nil {
		if require.Set() {
			t.Fatal(err)
		}
		t.Skip("not run: port 443 is not available: ", err)
	}
	ln.Close()
	s.front(unused+":443", nil)
	s.administratorAt("https://" + unused)
	s.works(s.run("--daemon", "nnf-dm"), "permissions checked at https://"+unused+"\n", "API server for compute nodes: host "+unused+", port 443")

	// The daemons do not support a path, as with a proxy.
	s.administratorAt(s.Cluster.URL + "/clusters/c-1")
	s.out += "/none"
	s.fails(s.run(), "note: ", "has a path, which the daemons do not support")
}
