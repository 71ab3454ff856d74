package provision

import (
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/statedir"
)

// adminFile is the administrator's kubeconfig in the cluster's directory.
const adminFile = "admin.kubeconfig"

// WriteAdmin writes admin.kubeconfig into the cluster's directory.
func WriteAdmin(dir string, admin *rest.Config) error {
	return writeKubeconfig(filepath.Join(dir, adminFile), admin, clientcmdapi.AuthInfo{
		ClientCertificateData: admin.CertData,
		ClientKeyData:         admin.KeyData,
	})
}

// ReadAdmin returns the administrator's access to the cluster of a directory.
func ReadAdmin(dir string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, adminFile))
	if err != nil {
		return nil, err
	}
	Unthrottle(config)
	return config, nil
}

// Unthrottle lifts the client's own limit of requests: a test waits for it in
// vain, and the server has its own.
func Unthrottle(config *rest.Config) { config.QPS = -1 }

// writeKubeconfig makes a file that stands alone: certificates and token are in
// it, not beside it.
func writeKubeconfig(path string, admin *rest.Config, user clientcmdapi.AuthInfo) error {
	const name = "devcluster"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: admin.Host, CertificateAuthorityData: admin.CAData}
	config.AuthInfos[name] = &user
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	content, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return statedir.WriteFile(path, content)
}
