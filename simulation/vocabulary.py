"""Words of the marketplace: the category tree, the attributes of items, and how brand names are put together."""

CATEGORIES: dict[str, dict[str, tuple[str, str, str, str]]] = {
    "fashion": {
        "womenswear": ("dresses", "blouses", "skirts", "leggings"),
        "menswear": ("shirts", "trousers", "hoodies", "suits"),
        "shoes": ("sneakers", "boots", "sandals", "loafers"),
        "accessories": ("handbags", "belts", "scarves", "sunglasses"),
    },
    "electronics": {
        "audio": ("headphones", "earbuds", "speakers", "soundbars"),
        "phones": ("smartphones", "chargers", "phone cases", "power banks"),
        "computers": ("laptops", "monitors", "keyboards", "routers"),
        "photography": ("action cameras", "lenses", "tripods", "drones"),
    },
    "home": {
        "bedding": ("duvets", "pillows", "bed sheets", "blankets"),
        "furniture": ("sofas", "bookshelves", "desks", "armchairs"),
        "lighting": ("table lamps", "ceiling lights", "floor lamps", "string lights"),
        "storage": ("baskets", "wardrobes", "shoe racks", "drawer units"),
    },
    "kitchen": {
        "cookware": ("frying pans", "saucepans", "woks", "baking trays"),
        "appliances": ("kettles", "blenders", "toasters", "coffee machines"),
        "tableware": ("plates", "mugs", "wine glasses", "bowls"),
        "utensils": ("knives", "graters", "ladles", "chopping boards"),
    },
    "beauty": {
        "skincare": ("moisturisers", "serums", "sunscreens", "face masks"),
        "makeup": ("lipsticks", "mascaras", "foundations", "eyeliners"),
        "haircare": ("shampoos", "hair dryers", "conditioners", "hair brushes"),
        "fragrance": ("perfumes", "body mists", "scented candles", "diffusers"),
    },
    "sports": {
        "running": ("running shorts", "running jackets", "running socks", "hydration vests"),
        "fitness": ("yoga mats", "dumbbells", "resistance bands", "exercise bikes"),
        "camping": ("tents", "sleeping bags", "backpacks", "hiking poles"),
        "cycling": ("helmets", "bike lights", "bike pumps", "cycling gloves"),
    },
    "children": {
        "toys": ("building blocks", "puzzles", "dolls", "toy cars"),
        "baby": ("strollers", "car seats", "baby bottles", "cribs"),
        "school": ("pencil cases", "school bags", "notebooks", "crayons"),
        "games": ("board games", "card games", "dice sets", "marbles"),
    },
    "garden": {
        "plants": ("seeds", "bulbs", "planters", "potted herbs"),
        "tools": ("spades", "secateurs", "hoses", "lawn mowers"),
        "outdoor": ("parasols", "hammocks", "garden chairs", "barbecues"),
        "pets": ("dog beds", "cat trees", "pet bowls", "bird feeders"),
    },
}

ATTRIBUTES: tuple[str, ...] = (
    *("black", "white", "red", "blue", "green", "pink", "beige", "silver"),
    *("leather", "cotton", "steel", "wooden", "ceramic", "bamboo", "recycled", "glass"),
    *("vintage", "modern", "minimalist", "sporty", "classic", "luxury", "compact", "waterproof"),
    *("lightweight", "foldable", "handmade", "printed", "striped", "soft", "quiet", "smart"),
)

BRAND_HEADS: tuple[str, ...] = ("nor", "vel", "kai", "lum", "ost", "bra", "ti", "zen", "mar", "fjo")
BRAND_MIDDLES: tuple[str, ...] = ("a", "e", "i", "o", "u")
BRAND_TAILS: tuple[str, ...] = ("vak", "lin", "dor", "ra", "tek", "mo", "sse", "nd")


def brand_names(count: int) -> list[str]:
    """The first `count` brand names, all different (400 at most); heads vary first, so neighbours look unlike."""
    heads, middles, tails = len(BRAND_HEADS), len(BRAND_MIDDLES), len(BRAND_TAILS)
    return [
        BRAND_HEADS[n % heads] + BRAND_MIDDLES[(n // heads) % middles] + BRAND_TAILS[(n // heads // middles) % tails]
        for n in range(count)
    ]
