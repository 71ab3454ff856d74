package deploycreds

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// asDaemon asks with the files that were written, as a daemon would.
func (s *site) asDaemon(path string) int {
	s.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.read(s.out + "/service.cert")))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.Context(patience), http.MethodGet, s.Cluster.URL+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.read(s.out+"/service.token"))
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// The address that computes use is another one than the administrator's: the
// credentials are tried there.
func TestAddressOfComputes(t *testing.T) {
	s := newSite(t)
	front := s.front("[::1]:0", nil)
	_, port, _ := net.SplitHostPort(front.Listener.Addr().String())
	for _, host := range []string{"::1", "[::1]"} {
		s.works(s.run("--daemon", "nnf-dm", "--kubernetes-service-host", host, "--kubernetes-service-port", port),
			"rights checked at https://[::1]:"+port, "API server for computes: host ::1, port "+port)
	}
	s.out += "/none"
	s.fails(s.run("--kubernetes-service-host", "::1", "--kubernetes-service-port", "1"), "cannot reach API server https://[::1]:1", "refused")
}

// The kubeconfig itself names IPv6, or no port.
func TestKubeconfigAddress(t *testing.T) {
	s := newSite(t)
	s.administratorAt(s.front("[::1]:0", nil).URL)
	s.works(s.run("--daemon", "nnf-dm"), "API server for computes: host ::1, port ", "[::1]:")

	const unused = "127.86.4.11" // nobody's
	ln, err := net.Listen("tcp", unused+":443")
	if err != nil {
		if os.Getenv(world.RequireVar) != "" {
			t.Fatal(err)
		}
		t.Skip("an address without a port cannot be tested, 443 is not ours: ", err)
	}
	ln.Close()
	s.front(unused+":443", nil)
	s.administratorAt("https://" + unused)
	s.works(s.run("--daemon", "nnf-dm"), "rights checked at https://"+unused+"\n", "API server for computes: host "+unused+", port 443")

	// A proxy's path is of no use to the daemons.
	s.administratorAt(s.Cluster.URL + "/clusters/c-1")
	s.out += "/none"
	s.fails(s.run(), "note: ", "has a path, which the daemons do not know")
}
