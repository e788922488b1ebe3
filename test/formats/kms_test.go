package formats

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"

	"github.com/countersign-dev/countersign/internal/testenv/cosign"
)

// pluginName is the name of the plug-in that cosign runs for the keys pss://FILE. cosign signs with
// RSA PSS only where a key management system does, so this test binary is one.
const pluginName = "sigstore-kms-pss"

// isPlugin reports whether cosign runs this binary as its plug-in.
func isPlugin() bool { return filepath.Base(os.Args[0]) == pluginName }

// addPlugin adds the plug-in to a client, and a key to the folder of the client. It returns the
// reference of the key, and its public key in PEM.
func addPlugin(client *cosign.Client, name string, private crypto.Signer) (reference, public string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	if err := os.Symlink(self, filepath.Join(client.Dir, pluginName)); err != nil && !errors.Is(err, os.ErrExist) {
		return "", "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", err
	}
	file := name + ".pem"
	if err := os.WriteFile(filepath.Join(client.Dir, file), der, 0o600); err != nil {
		return "", "", err
	}
	public, err = publicPEM(private.Public())
	return "pss://" + file, public, err
}

func publicPEM(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), err
}

// runPlugin answers one call of cosign, and returns the exit code.
func runPlugin() int {
	answer, err := plugin(os.Args)
	if err != nil {
		answer = &common.PluginResp{ErrorMessage: err.Error()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		return 1
	}
	return 0
}

// plugin does what the second argument says.
func plugin(args []string) (*common.PluginResp, error) {
	var call common.PluginArgs
	if err := json.Unmarshal([]byte(strings.Join(args[2:], " ")), &call); err != nil {
		return nil, err
	}
	der, err := os.ReadFile(call.InitOptions.KeyResourceID)
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, err := signature.LoadRSAPSSSigner(private.(*rsa.PrivateKey), crypto.SHA256, nil)
	if err != nil {
		return nil, err
	}
	switch call.MethodName {
	case common.PublicKeyMethodName:
		public, err := publicPEM(signer.Public())
		return &common.PluginResp{PublicKey: &common.PublicKeyResp{PublicKeyPEM: []byte(public)}}, err
	case common.SignMessageMethodName:
		sig, err := signer.SignMessage(os.Stdin)
		return &common.PluginResp{SignMessage: &common.SignMessageResp{Signature: sig}}, err
	}
	return nil, fmt.Errorf("unknown method %q", call.MethodName)
}
