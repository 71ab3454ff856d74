package provision

import (
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/statedir"
)

// adminFile is the kubeconfig of the administrator, in the cluster directory.
const adminFile = "admin.kubeconfig"

// WriteAdmin writes admin.kubeconfig into the cluster directory.
func WriteAdmin(dir string, admin *rest.Config) error {
	return writeKubeconfig(filepath.Join(dir, adminFile), admin, clientcmdapi.AuthInfo{
		ClientCertificateData: admin.CertData,
		ClientKeyData:         admin.KeyData,
	})
}

// ReadAdmin returns the client configuration of the administrator.
func ReadAdmin(dir string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, adminFile))
	if err != nil {
		return nil, err
	}
	Unthrottle(config)
	return config, nil
}

// Unthrottle disables client-side rate limiting, which would only slow down tests.
func Unthrottle(config *rest.Config) { config.QPS = -1 }

// writeKubeconfig writes a kubeconfig that includes the certificates and the token.
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
