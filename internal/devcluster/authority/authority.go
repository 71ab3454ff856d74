// Package authority creates the certificates and keys of the cluster. The certificate
// authority and the signing key of service account tokens persist; the certificates of
// the server and of the administrator are issued at each start.
//
// It must not know Kubernetes.
package authority

import (
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/statedir"
)

// Keys has the keys and certificates of a cluster, in PEM format.
type Keys struct {
	CA         []byte // certificate
	AdminCert  []byte
	AdminKey   []byte
	Signer     *ecdsa.PrivateKey // signs service-account tokens
	CAFile     string
	ServerCert string // file
	ServerKey  string // file
	SignerFile string
}

// Files returns the paths of the files that Load has written to a directory.
func Files(dir string) *Keys {
	return &Keys{
		CAFile:     filepath.Join(dir, "ca.crt"),
		ServerCert: filepath.Join(dir, "server.crt"),
		ServerKey:  filepath.Join(dir, "server.key"),
		SignerFile: filepath.Join(dir, "service-account.key"),
	}
}

// Load returns the keys in a directory and creates missing ones. With newCA it replaces
// the certificate authority, so that clients with the old one no longer trust the
// server. The signing key is kept, so tokens stay valid. The error about an invalid
// file has its path.
func Load(dir string, newCA bool) (*Keys, error) {
	k := Files(dir)
	// Certificate and key of the authority are in one file, so that they match even
	// after a crash.
	ca, err := loadPair(filepath.Join(dir, "ca.pem"))
	if newCA || errors.Is(err, fs.ErrNotExist) {
		ca, err = newAuthority()
		if err == nil {
			err = statedir.WriteFile(filepath.Join(dir, "ca.pem"), append(ca.certPEM(), ca.keyPEM()...))
		}
	}
	if err != nil {
		return nil, err
	}
	if k.Signer, err = loadSigner(k.SignerFile); err != nil {
		return nil, err
	}
	server, err := issue(ca, x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	})
	if err != nil {
		return nil, err
	}
	admin, err := issue(ca, x509.Certificate{
		Subject:     pkix.Name{CommonName: "devcluster-admin", Organization: []string{"system:masters"}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	k.CA, k.AdminCert, k.AdminKey = ca.certPEM(), admin.certPEM(), admin.keyPEM()
	for path, content := range map[string][]byte{k.CAFile: k.CA, k.ServerCert: server.certPEM(), k.ServerKey: server.keyPEM()} {
		if err := statedir.WriteFile(path, content); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func newAuthority() (*pair, error) {
	return issue(nil, x509.Certificate{
		Subject:               pkix.Name{CommonName: "devcluster-ca"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	})
}

func loadSigner(path string) (*ecdsa.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		return key, statedir.WriteFile(path, keyPEM(key))
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no PEM block in it", path)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}
