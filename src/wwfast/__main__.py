from wwfast.cli.main import main

main()
