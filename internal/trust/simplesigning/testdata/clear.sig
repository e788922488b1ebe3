-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

{"critical":{"identity":{"docker-reference":"registry.example.com/acme/app:v1"},"image":{"docker-manifest-digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},"type":"atomic container signature"},"optional":{"creator":"by hand","timestamp":1767261600}}
-----BEGIN PGP SIGNATURE-----

iIUEARYIAC0WIQTXZQBtRPS0MGcNfi2njD+jZcxJEgUCaVZFoA8ccWFAZXhhbXBs
ZS5jb20ACgkQp4w/o2XMSRJJ+wEAo530WsomtbVz76OTIJ6ffSBgd6AWcKsVrrE4
ajPLSPsBAMZVm3Nvfg+m/BC2w/b5GZAF9lw7oQvSOUe3YaS8UF4O
=cwoZ
-----END PGP SIGNATURE-----
