// Command sign signs an image in a registry for one role, as Docker Content Trust does, with the
// real client: this is how the project signs its own. It reads the repository with the manager's
// own reader before and after: it signs nothing where the root is not the pinned one, and says who
// has signed the image then.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil && !errors.Is(err, pflag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "sign:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	r := request{
		passphrase: os.Getenv("NOTARY_DELEGATION_PASSPHRASE"),
		auth:       os.Getenv("NOTARY_AUTH"),
		progress:   os.Stderr,
	}
	if hosts := os.Getenv("NOTARY_TOKEN_SERVICES"); hosts != "" {
		r.tokenServices = strings.Split(hosts, ",")
	}
	f := pflag.NewFlagSet("sign", pflag.ContinueOnError)
	f.StringVar(&r.role, "role", "", "role to sign for, such as ci: the delegation targets/ci")
	f.StringVar(&r.image, "image", "",
		"repository with the digest, as registry.example.com/countersign/countersign@sha256:...")
	f.StringVar(&r.tag, "tag", "", "tag of that digest, such as v1.2.3")
	f.StringVar(&r.server, "server", os.Getenv("NOTARY_SERVER"), "URL of the Notary server (default $NOTARY_SERVER)")
	f.StringVar(&r.serverCA, "server-ca", os.Getenv("NOTARY_CA"),
		"file of certificates that the server's must chain to (default $NOTARY_CA, else the system's)")
	f.StringVar(&r.rootKeyID, "root-key-id", os.Getenv("NOTARY_ROOT_KEY_ID"),
		"canonical ID of the repository's root key, as \"docker trust inspect\" prints it "+
			"(default $NOTARY_ROOT_KEY_ID)")
	f.StringVar(&r.key, "key", os.Getenv("NOTARY_KEY"),
		"file of the role's private key (default $NOTARY_KEY); NOTARY_DELEGATION_PASSPHRASE opens an encrypted one")
	if err := f.Parse(args); err != nil {
		return err
	}
	roles, err := sign(ctx, r)
	if err != nil {
		return err
	}
	fmt.Printf("%s of %s is signed by: %s\n", r.tag, r.image, roles)
	return nil
}
