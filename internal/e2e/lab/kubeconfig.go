package lab

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

// kubeconfig holds what we need of the file: one server and one user, by
// client certificate or token.
type kubeconfig struct {
	Clusters []struct {
		Cluster struct {
			Server string `json:"server"`
			CA     string `json:"certificate-authority-data"`
			CAFile string `json:"certificate-authority"`
		} `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		User struct {
			Cert  string `json:"client-certificate-data"`
			Key   string `json:"client-key-data"`
			Token string `json:"token"`
		} `json:"user"`
	} `json:"users"`
}

// credentials reads a kubeconfig.
func credentials(path string) (server, token string, ca []byte, config *tls.Config, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", "", nil, nil, err
	}
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		return "", "", nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(k.Clusters) == 0 || len(k.Users) == 0 {
		return "", "", nil, nil, fmt.Errorf("%s names no cluster or no user", path)
	}
	cluster, user := k.Clusters[0].Cluster, k.Users[0].User
	if cluster.CAFile != "" {
		ca, err = os.ReadFile(cluster.CAFile)
	} else {
		ca, err = base64.StdEncoding.DecodeString(cluster.CA)
	}
	if err != nil {
		return "", "", nil, nil, fmt.Errorf("%s: certificate authority: %w", path, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return "", "", nil, nil, fmt.Errorf("%s: no certificate authority", path)
	}
	config = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if user.Cert != "" {
		cert, e1 := base64.StdEncoding.DecodeString(user.Cert)
		key, e2 := base64.StdEncoding.DecodeString(user.Key)
		pair, e3 := tls.X509KeyPair(cert, key)
		if err := errors.Join(e1, e2, e3); err != nil {
			return "", "", nil, nil, fmt.Errorf("%s: client certificate: %w", path, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return cluster.Server, user.Token, ca, config, nil
}
